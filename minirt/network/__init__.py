"""The only door to pyroute2: bridge, veth, addresses, nftables."""
