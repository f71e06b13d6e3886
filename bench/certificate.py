"""A certificate authority for one run, and a certificate that it signs, by openssl."""
import os
import subprocess

# An address for revocation lists that leads nowhere: a certificate without one is rightly complained about.
EXTENSIONS = """
[authority]
basicConstraints = critical, CA:TRUE
keyUsage = critical, keyCertSign, cRLSign
subjectKeyIdentifier = hash
[server]
basicConstraints = critical, CA:FALSE
keyUsage = critical, digitalSignature
extendedKeyUsage = serverAuth
subjectAltName = DNS:localhost, DNS:*.localhost, IP:127.0.0.1
crlDistributionPoints = URI:http://crl.invalid/authority.crl
subjectKeyIdentifier = hash
authorityKeyIdentifier = keyid
[req]
distinguished_name = name
[name]
"""


class Certificate:
    """For localhost, P-256, 90 days: files `chain` and `key`, the CA's in `authority`."""

    def __init__(self, folder):
        os.makedirs(folder, exist_ok=True)
        self.folder = folder
        self.authority = self.path("authority.pem")
        self.chain = self.path("chain.pem")
        self.key = self.path("key.pem")
        self.settings = {"TLS_CERT": self.chain, "TLS_KEY": self.key}
        with open(self.path("openssl.cnf"), "w", encoding="utf-8") as file:
            file.write(EXTENSIONS)
        config = ["-config", self.path("openssl.cnf")]
        for key in ("authority.key", "key.pem"):
            self.openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", self.path(key))
        self.openssl("req", "-x509", *config, "-extensions", "authority", "-key", self.path("authority.key"), "-sha256",
                     "-days", "90", "-subj", "/CN=CA of one run", "-out", self.authority)
        self.openssl("req", "-new", *config, "-key", self.key, "-subj", "/CN=localhost", "-out", self.path("request.pem"))
        self.openssl("x509", "-req", "-in", self.path("request.pem"), "-CA", self.authority, "-CAkey",
                     self.path("authority.key"), "-CAcreateserial", "-days", "90", "-sha256", "-extfile",
                     self.path("openssl.cnf"), "-extensions", "server", "-out", self.chain)

    def path(self, name):
        return os.path.join(self.folder, name)

    @staticmethod
    def openssl(*words):
        subprocess.run(["openssl", *words], check=True, capture_output=True, stdin=subprocess.DEVNULL, timeout=60)
