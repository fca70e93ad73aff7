#!/bin/sh
# PgBouncer in transaction mode before the server `postgres`, for the user and database `modal` with the password
# $POSTGRES_PASSWORD. The files with the password are on a file system in memory.
set -eu
umask 077
printf '"modal" "%s"\n' "$POSTGRES_PASSWORD" > /tmp/userlist.txt
cat > /tmp/pgbouncer.ini <<END
[databases]
modal = host=postgres port=5432 dbname=modal pool_mode=transaction pool_size=20

[pgbouncer]
listen_addr = *
listen_port = 6432
unix_socket_dir =
auth_type = scram-sha-256
auth_file = /tmp/userlist.txt
server_login_retry = 1
END
exec pgbouncer -q /tmp/pgbouncer.ini
