set -a; . /etc/environment; set +a
