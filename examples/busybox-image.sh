#!/bin/sh
# Make the image localhost/busybox from Debian's busybox-static, without any network.
# usage: busybox-image.sh [MINIRT]      MINIRT is the command to import it with (default: minirt)
set -eu
minirt=${1:-minirt}
busybox=$(command -v busybox) || { echo "busybox is missing: apt-get install busybox-static" >&2; exit 1; }
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT

mkdir -p "$root/bin" "$root/etc" "$root/home" "$root/proc" "$root/root" "$root/sys" "$root/tmp" "$root/var/www"
chmod 755 "$root" && chmod 700 "$root/root" && chmod 1777 "$root/tmp"
cp "$busybox" "$root/bin/busybox"
for applet in $("$busybox" --list); do
    [ "$applet" = busybox ] || ln -s busybox "$root/bin/$applet"
done
cat > "$root/etc/passwd" <<EOF
root:x:0:0:root:/root:/bin/sh
www-data:x:33:33:www-data:/var/www:/bin/false
nobody:x:65534:65534:nobody:/home:/bin/false
EOF
cat > "$root/etc/group" <<EOF
root:x:0:
www-data:x:33:
nogroup:x:65534:
EOF
$minirt image import "$root" localhost/busybox --cmd sh --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
