#!/bin/sh
# Runs in the guest: obeys one word a line, answers each with lines and then "done" or "failed".
set -u
tree=/srv/tree

page() {
    nginx
}

tree_write() {
    rm -rf "$tree" && mkdir -p "$tree" || return 1
    for folder in 1 2 3 4; do
        mkdir -p "$tree/$folder/deep/er" || return 1
        for size in 0 1 4095 4096 65537 1048576; do
            head -c "$size" /dev/urandom > "$tree/$folder/deep/er/$size" || return 1
        done
        ln "$tree/$folder/deep/er/4095" "$tree/$folder/hard" || return 1
        ln -s deep/er/4096 "$tree/$folder/soft" || return 1
    done
    sync
    # Nothing may come from this guest's memory when it reads back.
    echo 3 > /proc/sys/vm/drop_caches || return 1
    (cd "$tree" && find . -type f -exec sha256sum {} + > /run/sums) || return 1
    sort -k 2 /run/sums
}

disk() {
    fio --name=verify --filename=/dev/disk/by-id/virtio-disk0 --ioengine=libaio --direct=1 \
        --rw=randwrite --bs=4k --iodepth=32 --size="$1" --verify=crc32c --do_verify=1 \
        --verify_fatal=1 --output-format=normal 2>&1
}

while read -r order argument; do
    case $order in
        page) page ;;
        tree) tree_write ;;
        disk) disk "$argument" ;;
        stop) exit 0 ;;
        *) echo "unknown order $order"; false ;;
    esac && echo done || echo failed
done
