# ACLs in the current directory: what they are, what they allow, what becomes of them. No output of it
# may depend on where it runs.
exec 2>&1
umask 022
user() { setpriv --reuid 4321 --regid 8765 --clear-groups "$@"; }
member() { setpriv --reuid 5000 --regid 5000 --groups 9999 "$@"; }
show() { getfacl -n -c -E "$@" | sed '/^$/d'; stat -c '%n %a' "$@"; }
try() { what=$1; shift; if "$@" > /dev/null 2>&1; then echo "$what: yes"; else echo "$what: no"; fi; }
mkdir work && chmod 755 work && cd work || exit 1

echo "== an entry for a user and a group"
echo secret > file && chmod 600 file
try "without" user cat file
setfacl -m u:4321:r file && show file
try "user reads" user cat file
try "user writes" user sh -c 'echo x >> file'
setfacl -m g:9999:rw file && show file
try "member writes" member sh -c 'echo x >> file'

echo "== chmod sets the mask"
chmod 640 file && show file
try "member writes under the mask" member sh -c 'echo x >> file'
chmod 660 file && show file
try "member writes again" member sh -c 'echo x >> file'
setfacl -m m::r file && show file
setfacl -b file && show file
try "without again" user cat file

echo "== defaults are inherited, and no umask"
mkdir dir && setfacl -m d:u:4321:rwx,d:g::rx,d:o::- dir && show dir
for mask in 022 077 000; do
	umask $mask
	: > dir/f$mask && mkdir dir/d$mask && show dir/f$mask dir/d$mask
	mkfifo dir/p$mask && ln -s nowhere dir/l$mask && show dir/p$mask
done
umask 022
chmod 777 dir
user sh -c 'umask 027; : > dir/own; mkdir dir/owndir' && show dir/own dir/owndir
stat -c '%n %u %g' dir/own dir/owndir
user sh -c 'mktemp -p dir tmp.XXXXXX > /dev/null' && stat -c %a dir/tmp.*

echo "== set-group-ID and ACLs"
: > sgid && chown 4321:9999 sgid && chmod 2775 sgid
try "owner, no member of the group, sets" user setfacl -m u:5000:rwx sgid
show sgid
: > sgid2 && chown 4321:8765 sgid2 && chmod 2775 sgid2
try "owner and member sets" user setfacl -m u:5000:rwx sgid2
show sgid2

echo "== who may"
try "a stranger sets" member setfacl -m u:5000:rwx dir/own
try "a stranger removes" member setfacl -b dir/own
try "the owner sets" user setfacl -m u:5000:r dir/own
show dir/own
try "defaults of a file" setfacl -d -m u:1:r file
try "nonsense" setfattr -n system.posix_acl_access -v 0x0200 file
try "list" sh -c 'getfattr -m - dir | grep -q posix_acl_default'

echo "== copies"
cp -a dir copy && show copy copy/own
tar --acls -cf all.tar dir && mkdir out && tar --acls -C out -xpf all.tar && show out/dir out/dir/own
mv dir moved && show moved
echo end
