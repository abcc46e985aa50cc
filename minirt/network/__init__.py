"""The network of pods: a bridge on the host, one veth pair a sandbox, NAT to the outside. The one door to pyroute2.

    host                                                                      a sandbox's network namespace
    ┌──────────────────────────────────────────────────────────┐              ┌───────────────────────────┐
    │  eth0 ◀── masquerade (nft) ── minirt0 10.77.0.1/16       │              │                           │
    │                                  ├── veth6f0c1d2e3a4 ────┼──────────────┼── eth0 10.77.0.2/16       │
    │                                  └── vethb17e55a90c2 ──▶ another one   │   default via 10.77.0.1   │
    └──────────────────────────────────────────────────────────┘              └───────────────────────────┘

Each IPv4 address has an IPv6 address that goes with it (fdcd:7ee:a274::a4d:2), where the kernel has IPv6.

``settings`` says which bridge; ``addresses`` leases addresses to sandboxes; ``operations`` are the steps of a plan;
``rtnetlink`` carries them to the kernel, ``firewall`` through nft and iptables; ``bridge`` compiles and executes.
"""
