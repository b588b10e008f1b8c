# The guest of `ringside-perf documents`: obeys one line after another, each a call of a function below.
export LC_ALL=C
mkdir -p /mnt /etc /run /var/log/nginx /var/lib/nginx
echo 'root:x:0:0:root:/:/bin/sh' >/etc/passwd
echo 'root:x:0:' >/etc/group
ifconfig lo 127.0.0.1 up

# NAME TYPE SOURCE OPTIONS: mounts it, and reads all small files once.
attach() {
    mkdir -p "/mnt/$1" && mount -t "$2" -o "$4" "$3" "/mnt/$1" && cat "/mnt/$1"/small/* >/dev/null
}

# KIB SOURCE: a disk in the guest's own memory with the same content as the disk SOURCE.
memory_disk() {
    rmmod brd
    insmod /modules/brd.ko rd_nr=1 rd_size="$1" && dd if="$2" of=/dev/ram0 bs=1M 2>&1
}

# FILE COUNT, as the documents have it. The shell has a dd of its own, which tells no time.
dd_write() { /bin/dd if=/dev/zero of="$1" bs=4k count="$2" oflag=direct 2>&1; }
dd_read() { /bin/dd if="$1" of=/dev/null bs=4k count="$2" iflag=direct 2>&1; }

# FILE PATTERN BLOCK DEPTH JOBS MILLISECONDS
fio_job() {
    fio --name=job --filename="$1" --rw="$2" --bs="$3" --iodepth="$4" --numjobs="$5" --runtime="$6ms" \
        --ramp_time=50ms --time_based --thread --ioengine=libaio --direct=1 --group_reporting --output-format=json 2>&1
}

# One worker, every mounted file system below /.
serve() {
    cat >/etc/nginx.conf <<'END'
user root root;
worker_processes 1;
error_log /dev/null;
pid /run/nginx.pid;
events { worker_connections 512; }
http { access_log off; sendfile on; server { listen 80; root /mnt; } }
END
    nginx -c /etc/nginx.conf 2>&1
}

# NAME SECONDS
load() { ab -q -k -c 100 -t "$2" -n 1000000 "http://127.0.0.1/$1/index.html" 2>&1; }

number=0
while read -r order; do
    number=$((number + 1))
    eval "$order" </dev/null
    printf '\ndone %d %d\n' "$number" $?
done
