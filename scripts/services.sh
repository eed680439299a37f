#!/usr/bin/env bash
# Makes sure that the services that the tests need answer on loopback.
#
#   scripts/services.sh [rabbitmq] [postgresql] [mariadb]        default: rabbitmq
#
# A service that answers is used as it is. Others are started with Docker, where an engine runs;
# else, as root on Debian or Ubuntu, from their packages. What is started stays up for the next run.
#
# The tests log in as guest/guest (RabbitMQ), postgres (PostgreSQL; PGPASSWORD counts) and
# root (MariaDB), both without a password.
# Other ports: TEST_RABBITMQ_PORT, TEST_POSTGRESQL_PORT, TEST_MARIADB_PORT.
set -euo pipefail

RABBITMQ_IMAGE=rabbitmq:4.2 # the last that allows the non-durable queues of older deployments
POSTGRESQL_IMAGE=postgres:17
MARIADB_IMAGE=mariadb:11.4
STARTUP_SECONDS=${TEST_SERVICES_TIMEOUT:-90}

python=${PYTHON:-python3}
services=("$@")
[ ${#services[@]} -gt 0 ] || services=(rabbitmq)

say() { echo "services: $*"; }
fail() {
    echo "services: $*" >&2
    exit 1
}

port_of() {
    case $1 in
    rabbitmq) echo "${TEST_RABBITMQ_PORT:-5672}" ;;
    postgresql) echo "${TEST_POSTGRESQL_PORT:-5432}" ;;
    mariadb) echo "${TEST_MARIADB_PORT:-3306}" ;;
    *) fail "unknown service '$1': rabbitmq, postgresql and mariadb are known" ;;
    esac
}

package_of() {
    case $1 in
    rabbitmq) echo rabbitmq-server ;;
    postgresql) echo postgresql ;;
    mariadb) echo mariadb-server ;;
    esac
}

# Ends with 0 when the service answers and lets the tests in, 1 when nothing listens, 2 when
# something else is wrong; prints what. Without the client libraries only the greeting is checked.
probe() {
    "$python" - "$1" "$(port_of "$1")" <<'PYTHON'
import logging
import socket
import sys

service, port = sys.argv[1], int(sys.argv[2])
HELLO = {"rabbitmq": b"AMQP\x00\x00\x09\x01", "postgresql": b"\x00\x00\x00\x08\x04\xd2\x16\x2f", "mariadb": b""}
GREETS = {
    "rabbitmq": lambda answer: answer[:1] == b"\x01",  # a method frame: connection.start
    "postgresql": lambda answer: answer[:1] in (b"S", b"N"),  # to "do you speak TLS?"
    "mariadb": lambda answer: answer[4:5] in (b"\x0a", b"\xff"),  # protocol 10, or an error packet
}


def log_in():
    if service == "rabbitmq":
        import pika

        parameters = pika.ConnectionParameters("127.0.0.1", port, socket_timeout=5, stack_timeout=10)
        pika.BlockingConnection(parameters).close()
    elif service == "postgresql":
        import psycopg

        psycopg.connect(host="127.0.0.1", port=port, user="postgres", dbname="postgres", connect_timeout=5).close()
    else:
        import pymysql

        pymysql.connect(host="127.0.0.1", port=port, user="root", connect_timeout=5).close()


def problem(error):
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[-1]}" if lines else repr(error)


logging.disable()
try:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(HELLO[service])
        answer = connection.recv(64)
except ConnectionRefusedError:
    sys.exit(1)
except OSError as error:
    print(problem(error))
    sys.exit(2)
if not GREETS[service](answer):
    print(f"what answers there is not {service}")
    sys.exit(2)
try:
    log_in()
except ImportError:
    pass
except Exception as error:
    print(problem(error))
    sys.exit(2)
PYTHON
}

# Waits for a service until it answers, at most so many seconds; sets `trouble` to what was last seen.
wait_for() {
    local end=$((SECONDS + $2))
    until trouble=$(probe "$1"); do
        [ $SECONDS -lt $end ] || return 1
        sleep 1
    done
}

docker_runs() { command -v docker >/dev/null && docker info >/dev/null 2>&1; }

start_with_docker() {
    local name=http-downloader-test-$1 port options
    port=$(port_of "$1")
    case $1 in
    rabbitmq) options=(--publish "127.0.0.1:$port:5672" "$RABBITMQ_IMAGE") ;;
    postgresql) options=(--publish "127.0.0.1:$port:5432" --env POSTGRES_HOST_AUTH_METHOD=trust "$POSTGRESQL_IMAGE") ;;
    mariadb) options=(--publish "127.0.0.1:$port:3306" --env MARIADB_ALLOW_EMPTY_ROOT_PASSWORD=1 "$MARIADB_IMAGE") ;;
    esac
    say "$1: starting a container (end it with: docker rm --force $name)"
    docker rm --force "$name" >/dev/null 2>&1 || true
    docker run --quiet --detach --rm --name "$name" "${options[@]}" >/dev/null ||
        fail "$1: docker could not start $name (its message is above)"
}

can_install() { [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; }

is_installed() {
    case $1 in
    postgresql) compgen -G '/usr/lib/postgresql/*/bin/postgres' >/dev/null ;;
    *) dpkg-query --show --showformat='${Status}' "$(package_of "$1")" 2>/dev/null | grep -q 'ok installed' ;;
    esac
}

has_data() {
    case $1 in
    postgresql) compgen -G '/var/lib/postgresql/*/*/PG_VERSION' >/dev/null ;;
    mariadb) [ -d /var/lib/mysql/mysql ] ;;
    rabbitmq) [ -d /var/lib/rabbitmq/mnesia ] ;;
    esac
}

install_packages() {
    local log
    log=$(mktemp)
    say "will install with apt-get: $*"
    if ! { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends "$@"; } </dev/null >"$log" 2>&1; then
        tail -n 5 "$log" >&2
        rm -f "$log"
        fail "apt-get could not install $*: the last lines of its output are above"
    fi
    rm -f "$log"
}

# Starts an installed service; without systemd (containers) directly, bound to loopback.
start_package() {
    local port
    port=$(port_of "$1")
    if [ -d /run/systemd/system ]; then
        systemctl start "$(package_of "$1" | sed 's/mariadb-server/mariadb/')"
        return
    fi
    case $1 in
    rabbitmq)
        RABBITMQ_NODENAME=rabbit@localhost RABBITMQ_NODE_IP_ADDRESS=127.0.0.1 RABBITMQ_NODE_PORT=$port \
            ERL_EPMD_ADDRESS=127.0.0.1 rabbitmq-server -detached
        ;;
    postgresql)
        local version
        version=$(find /usr/lib/postgresql -mindepth 1 -maxdepth 1 -printf '%f\n' | sort -n | tail -n 1)
        [ -d "/etc/postgresql/$version/main" ] || pg_createcluster "$version" main
        pg_ctlcluster "$version" main start -o "-p $port -c listen_addresses=127.0.0.1"
        ;;
    mariadb)
        install -d -o mysql -g mysql /run/mysqld
        start-stop-daemon --start --background --exec /usr/sbin/mariadbd -- \
            --user=mysql --port="$port" --bind-address=127.0.0.1
        ;;
    esac </dev/null >/dev/null 2>&1 || fail "$1: its package is installed, and its server could not be started"
}

# A database server whose data this script has just created lets the tests in over loopback. One
# with data from before keeps its rules.
let_tests_in() {
    case $1 in
    postgresql)
        local rules
        for rules in /etc/postgresql/*/main/pg_hba.conf; do
            sed -i '1i host all postgres 127.0.0.1/32 trust' "$rules"
        done
        su postgres -c "psql -q -p $(port_of postgresql) -c 'SELECT pg_reload_conf()'" >/dev/null
        ;;
    mariadb)
        # Which of the two names a client on loopback has depends on skip-name-resolve.
        mariadb -e "ALTER USER root@localhost IDENTIFIED VIA unix_socket OR mysql_native_password USING PASSWORD('');
            CREATE USER IF NOT EXISTS root@127.0.0.1;
            GRANT ALL PRIVILEGES ON *.* TO root@127.0.0.1 WITH GRANT OPTION"
        ;;
    *) return ;;
    esac
    say "$1: new here, opened on 127.0.0.1 to its administrator without a password"
}

trouble=
missing=()
for service in "${services[@]}"; do
    port=$(port_of "$service")
    if probe "$service" >/dev/null; then
        say "$service: found on 127.0.0.1:$port"
    elif [ $? = 1 ]; then
        missing+=("$service")
    elif wait_for "$service" 15; then # it may be starting up just now
        say "$service: found on 127.0.0.1:$port"
    else
        fail "$service: 127.0.0.1:$port is taken, and the tests cannot use it (${trouble:-nothing listens any more}): allow their login (see scripts/services.sh), or set TEST_$(echo "$service" | tr '[:lower:]' '[:upper:]')_PORT to a free port"
    fi
done
[ ${#missing[@]} -gt 0 ] || exit 0

if docker_runs; then
    for service in "${missing[@]}"; do start_with_docker "$service"; done
elif can_install; then
    fresh=" "
    packages=()
    for service in "${missing[@]}"; do
        has_data "$service" || fresh+="$service "
        is_installed "$service" || packages+=("$(package_of "$service")")
    done
    [ ${#packages[@]} = 0 ] || install_packages "${packages[@]}"
    for service in "${missing[@]}"; do
        # The package may have started it.
        if probe "$service" >/dev/null || [ $? != 1 ]; then continue; fi
        say "$service: starting the installed package"
        start_package "$service"
    done
    for service in "${missing[@]}"; do
        case $fresh in *" $service "*) ;; *) continue ;; esac
        wait_for "$service" 20 || let_tests_in "$service"
    done
else
    wanted=
    for service in "${missing[@]}"; do wanted+="${wanted:+, }$service on 127.0.0.1:$(port_of "$service")"; done
    fail "missing: $wanted; start them, or start a Docker engine, or run this as root on Debian or Ubuntu to have the packages installed"
fi

for service in "${missing[@]}"; do
    wait_for "$service" "$STARTUP_SECONDS" ||
        fail "$service: started, and does not let the tests in on 127.0.0.1:$(port_of "$service") after $STARTUP_SECONDS s (${trouble:-nothing listens})"
    say "$service: started on 127.0.0.1:$(port_of "$service")"
done
