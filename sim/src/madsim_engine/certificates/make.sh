#!/bin/sh
# Makes the certificates of the simulated nodes anew. They are checked in, so that every run has the same ones. All
# keys are of Ed25519: its signatures have one length, and a run must not depend on their bytes.
set -eu
authority() {
    openssl genpkey -algorithm ed25519 -out "$1.key" 2>/dev/null
    openssl req -x509 -new -key "$1.key" -subj "/CN=$2" -days 36500 -out "$1.pem" \
        -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign
}
node() { # authority, file, name
    openssl genpkey -algorithm ed25519 -out "$2.key" 2>/dev/null
    openssl req -new -key "$2.key" -subj "/CN=$3" -out "$2.csr"
    printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth,clientAuth\nkeyUsage=critical,digitalSignature\nbasicConstraints=critical,CA:FALSE\n' \
        "$hosts" >ext
    openssl x509 -req -in "$2.csr" -CA "$1.pem" -CAkey "$1.key" -days 36500 -extfile ext -out "$2.pem" 2>/dev/null
    rm "$2.csr" ext
}
hosts=DNS:m0
for slot in 1 2 3 4 5 6 7 8 9 10 11; do hosts="$hosts,DNS:m$slot"; done
authority ca "simulated cluster"
authority other-ca "another simulated cluster"
for slot in 0 1 2 3 4 5 6 7 8 9 10 11; do node ca "n$slot" "node$slot"; done
node other-ca other node0
: >nodes.pem
for slot in 0 1 2 3 4 5 6 7 8 9 10 11; do cat "n$slot.pem" "n$slot.key" >>nodes.pem; done
cat other.pem other.key >other-node.pem
rm -f ./*.key n[0-9]*.pem other.pem ./*.srl
