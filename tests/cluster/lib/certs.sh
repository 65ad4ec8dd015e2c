# shellcheck shell=bash disable=SC2034,SC2154 # variables are shared between files
# The cluster's authorities, certificates and kubeconfigs.

# authority NAME: a certificate authority of its own.
authority() {
    openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 -batch \
        -keyout "$dir/pki/$1.key" -out "$dir/pki/$1.crt" -subj "/CN=$1" \
        -addext "keyUsage=critical,digitalSignature,keyCertSign" 2>>"$dir/pki/log"
}

# certificate AUTHORITY NAME SUBJECT [ALTERNATIVE-NAMES]
certificate() {
    local by=$1 name=$2 subject=$3 names=${4:-}
    local extensions=(-addext "basicConstraints=critical,CA:false"
        -addext "keyUsage=critical,digitalSignature"
        -addext "extendedKeyUsage=clientAuth,serverAuth")
    if [[ -n $names ]]; then
        extensions+=(-addext "subjectAltName=$names")
    fi
    openssl req -x509 -CA "$dir/pki/$by.crt" -CAkey "$dir/pki/$by.key" -days 30 -batch \
        -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout "$dir/pki/$name.key" \
        -out "$dir/pki/$name.crt" -subj "$subject" "${extensions[@]}" 2>>"$dir/pki/log"
}

# kubeconfig FILE SERVER CERTIFICATE
kubeconfig() {
    local file=$1 server=$2 certificate=$dir/pki/$3
    cat >"$file" <<YAML
apiVersion: v1
kind: Config
clusters:
- name: tidegate
  cluster:
    server: $server
    certificate-authority-data: $(base64 -w0 <"$dir/pki/ca.crt")
users:
- name: $3
  user:
    client-certificate-data: $(base64 -w0 <"$certificate.crt")
    client-key-data: $(base64 -w0 <"$certificate.key")
contexts:
- name: tidegate
  context: {cluster: tidegate, user: $3}
current-context: tidegate
YAML
    chmod 600 "$file"
}

# user_kubeconfig NAME SUBJECT [ALTERNATIVE-NAMES]: a certificate, and DIR/pki/NAME.kubeconfig with it.
user_kubeconfig() {
    certificate ca "$1" "$2" "${3:-}"
    kubeconfig "$dir/pki/$1.kubeconfig" "$server" "$1"
}

# service_account_keys: what signs the tokens of ServiceAccounts.
service_account_keys() {
    openssl ecparam -name prime256v1 -genkey -noout -out "$dir/pki/service-accounts.key"
    openssl ec -in "$dir/pki/service-accounts.key" -pubout -out "$dir/pki/service-accounts.pub" \
        2>>"$dir/pki/log"
}
