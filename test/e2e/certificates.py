"""Certificates for tests, made by python3-cryptography: an authority of our own, and what it signs."""

import datetime
import ipaddress
import os

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

DAY = datetime.timedelta(days=1)


def make_key(kind="ec"):
    return ec.generate_private_key(ec.SECP256R1()) if kind == "ec" else rsa.generate_private_key(65537, 2048)


def name_of(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def write(path, *parts):
    with open(path, "wb") as file:
        for part in parts:
            file.write(part)
    return path


def key_pem(key):
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8,
                             serialization.NoEncryption())


class Authority:
    """Signs certificates; `path` is what clients trust."""

    def __init__(self, folder):
        self.folder = folder
        self.key = make_key()
        self.name = name_of("Test Authority")
        self.number = 0
        self.certificate = self._sign(self.name, self.key, x509.BasicConstraints(ca=True, path_length=None), [])
        self.path = write(os.path.join(folder, "ca.pem"), self.certificate.public_bytes(serialization.Encoding.PEM))

    def _sign(self, subject, key, constraints, names, days=90):
        now = datetime.datetime.utcnow()
        builder = (x509.CertificateBuilder().subject_name(subject).issuer_name(self.name)
                   .public_key(key.public_key()).serial_number(x509.random_serial_number())
                   .not_valid_before(now - 200 * DAY).not_valid_after(now + days * DAY)
                   .add_extension(constraints, critical=True)
                   .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
                   .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(self.key.public_key()),
                                  critical=False))
        if names:
            builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
            builder = builder.add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
        else:
            usage = x509.KeyUsage(digital_signature=True, key_cert_sign=True, crl_sign=True, content_commitment=False,
                                  key_encipherment=False, data_encipherment=False, key_agreement=False,
                                  encipher_only=False, decipher_only=False)
            builder = builder.add_extension(usage, critical=True)
        return builder.sign(self.key, hashes.SHA256())

    def issue(self, *names, kind="ec", days=90, addresses=("127.0.0.1",)):
        """Two files: the certificate and its key."""
        self.number += 1
        key = make_key(kind)
        alternatives = [x509.DNSName(name) for name in names]
        alternatives += [x509.IPAddress(ipaddress.ip_address(address)) for address in addresses]
        certificate = self._sign(name_of(names[0]), key, x509.BasicConstraints(ca=False, path_length=None),
                                 alternatives, days)
        base = os.path.join(self.folder, f"{self.number}-{names[0].replace('*', 'any')}")
        return (write(base + ".pem", certificate.public_bytes(serialization.Encoding.PEM)),
                write(base + ".key", key_pem(key)))
