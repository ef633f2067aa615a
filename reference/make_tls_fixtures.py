"""Makes tests/fixtures/tls: certificates of `localhost` for the tests of downloads over TLS.

    pip install cryptography
    python reference/make_tls_fixtures.py

`authority.pem` signs all of them. `good.pem` is valid for a century, `expired.pem` was until 2001, and
`future.pem` will be from 2120 on: the last two are what a clock that is wrong makes of a good one.
`key.pem` is the key of all three, and is of use for nothing else.
"""

import datetime
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

OUT = Path(__file__).resolve().parent.parent / "tests" / "fixtures" / "tls"


def name(text):
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def certificate(subject, key, issuer, issuer_key, years, authority):
    first, last = (datetime.datetime(year, 1, 1, tzinfo=datetime.timezone.utc) for year in years)
    builder = (
        x509.CertificateBuilder()
        .subject_name(name(subject))
        .issuer_name(name(issuer))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(first)
        .not_valid_after(last)
        .add_extension(x509.BasicConstraints(ca=authority, path_length=None), critical=True)
    )
    if not authority:
        builder = builder.add_extension(
            x509.SubjectAlternativeName([x509.DNSName("localhost")]), critical=False
        ).add_extension(x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256()).public_bytes(serialization.Encoding.PEM)


def main():
    OUT.mkdir(parents=True, exist_ok=True)
    authority_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    issuer = "qlnet test authority"
    (OUT / "authority.pem").write_bytes(
        certificate(issuer, authority_key, issuer, authority_key, (2000, 2130), authority=True)
    )
    for file, years in [("good", (2020, 2120)), ("expired", (2000, 2001)), ("future", (2120, 2121))]:
        (OUT / f"{file}.pem").write_bytes(
            certificate("localhost", key, issuer, authority_key, years, authority=False)
        )
    (OUT / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )


if __name__ == "__main__":
    main()
