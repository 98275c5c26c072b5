//! What a certificate says of its holder: just enough of X.509 (RFC 5280) to read names and dates.
//!
//! No signature is checked here. What is read is either the operator's own file, or a certificate
//! that rustls has verified before. Foreign bytes never panic all the same.

use rustls::pki_types::CertificateDer;
use std::net::IpAddr;

/// Names of one certificate that are kept, at most.
const NAMES_MAX: usize = 64;
/// Bytes of one name, at most.
const CERTIFICATE_NAME_BYTES_MAX: usize = 256;
/// The attribute "common name" (2.5.4.3).
const COMMON_NAME: &[u8] = &[0x55, 0x04, 0x03];
/// The extension "subject alternative name" (2.5.29.17).
const ALTERNATIVE_NAMES: &[u8] = &[0x55, 0x1d, 0x11];

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTETS: u8 = 0x04;
const OBJECT_ID: u8 = 0x06;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// What a certificate says of its holder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Certificate {
    /// The common name of its subject; `None` if there is none, or more than one.
    pub common_name: Option<String>,
    /// The names of hosts that it is for.
    pub dns_names: Vec<String>,
    /// The addresses that it is for.
    pub addresses: Vec<IpAddr>,
    /// Further names: of persons (e-mail) and of services (URI).
    pub other_names: Vec<String>,
    /// It is valid from this time on, seconds since 1970.
    pub not_before: u64,
    /// It is valid until this time, seconds since 1970.
    pub not_after: u64,
}

/// Who is at the other end of a connection: the holder of a certificate that was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerCertificate {
    /// The common name, or the first of the other names. Empty if the certificate has no name.
    pub name: String,
    /// All that it says.
    pub certificate: Certificate,
}

impl Certificate {
    /// Reads a certificate. `None`: it is none.
    #[must_use]
    pub fn read(der: &CertificateDer<'_>) -> Option<Self> {
        let mut body = Der(Der(Der(der).take(SEQUENCE)?).take(SEQUENCE)?);
        // [0]: the version.
        body.skip_if(0xa0);
        body.take(INTEGER)?;
        body.take(SEQUENCE)?;
        let _issuer = body.take(SEQUENCE)?;
        let mut validity = Der(body.take(SEQUENCE)?);
        let (not_before, not_after) = (validity.time()?, validity.time()?);
        let subject = body.take(SEQUENCE)?;
        body.take(SEQUENCE)?;
        let mut certificate = Self {
            common_name: common_name(subject),
            dns_names: Vec::new(),
            addresses: Vec::new(),
            other_names: Vec::new(),
            not_before,
            not_after,
        };
        while let Some((tag, value)) = body.next() {
            // [3]: extensions.
            if tag == 0xa3 {
                certificate.read_extensions(Der(Der(value).take(SEQUENCE)?))?;
            }
        }
        Some(certificate)
    }

    /// Whether it is a member's of that name: its common name is the member's `--node-id`. Of a
    /// certificate without a common name, a host's name counts.
    #[must_use]
    pub fn is_of_member(&self, name: &str) -> bool {
        match &self.common_name {
            Some(common_name) => common_name == name,
            None => self.dns_names.iter().any(|one| one == name),
        }
    }

    /// The name by which its holder goes: the common name, or the first of the others.
    #[must_use]
    pub fn name(&self) -> &str {
        let others = self.dns_names.first().or(self.other_names.first());
        self.common_name.as_ref().or(others).map_or("", String::as_str)
    }

    fn read_extensions(&mut self, mut extensions: Der<'_>) -> Option<()> {
        while let Some((_, extension)) = extensions.next() {
            let mut extension = Der(extension);
            if extension.take(OBJECT_ID)? != ALTERNATIVE_NAMES {
                continue;
            }
            // "Critical".
            extension.skip_if(0x01);
            let mut names = Der(Der(extension.take(OCTETS)?).take(SEQUENCE)?);
            while let Some((tag, value)) = names.next() {
                self.note_name(tag, value);
            }
        }
        Some(())
    }

    fn note_name(&mut self, tag: u8, value: &[u8]) {
        let names = self.dns_names.len() + self.addresses.len() + self.other_names.len();
        if names >= NAMES_MAX {
            return;
        }
        match tag {
            0x82 => self.dns_names.extend(text(value)),
            0x81 | 0x86 => self.other_names.extend(text(value)),
            0x87 => {
                let v4 = <[u8; 4]>::try_from(value).map(IpAddr::from);
                self.addresses.extend(v4.or_else(|_| <[u8; 16]>::try_from(value).map(IpAddr::from)));
            }
            _ => {}
        }
    }
}

impl PeerCertificate {
    /// The holder of a certificate that was verified. `None`: it says nothing that can be read.
    pub(super) fn of(der: &CertificateDer<'_>) -> Option<Self> {
        let certificate = Certificate::read(der)?;
        Some(Self { name: certificate.name().to_owned(), certificate })
    }

    /// Whether it is a member's of that name. See [`Certificate::is_of_member`].
    #[must_use]
    pub fn is_of_member(&self, name: &str) -> bool {
        self.certificate.is_of_member(name)
    }
}

/// The one common name of a subject.
fn common_name(subject: &[u8]) -> Option<String> {
    let mut found = None;
    let mut parts = Der(subject);
    while let Some(part) = parts.take(SET) {
        let mut attributes = Der(part);
        while let Some(attribute) = attributes.take(SEQUENCE) {
            let mut attribute = Der(attribute);
            if attribute.take(OBJECT_ID)? != COMMON_NAME {
                continue;
            }
            let (tag, value) = attribute.next()?;
            // UTF-8, printable, or ASCII. A second one would be taken for the first.
            let is_text = matches!(tag, 0x0c | 0x13 | 0x16);
            let name = text(value).filter(|_| is_text && found.is_none())?;
            found = Some(name);
        }
    }
    found
}

/// A name: short, and harmless in a log line. Anything else is no name.
fn text(bytes: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(bytes).ok()?;
    let is_name =
        !text.is_empty() && text.len() <= CERTIFICATE_NAME_BYTES_MAX && !text.chars().any(char::is_control);
    is_name.then(|| text.to_owned())
}

/// Bytes of DER: a tag, a length and a value, again and again.
struct Der<'b>(&'b [u8]);

impl<'b> Der<'b> {
    /// The next tag and value. `None` at the end, or where there is no more sense in it.
    fn next(&mut self) -> Option<(u8, &'b [u8])> {
        let (&tag, rest) = self.0.split_first()?;
        let (&first, rest) = rest.split_first()?;
        let (length, rest) = match first {
            0..=0x7f => (usize::from(first), rest),
            0x81..=0x83 => {
                let (length, rest) = rest.split_at_checked(usize::from(first & 0x7f))?;
                (length.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest)
            }
            _ => return None,
        };
        let (value, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some((tag, value))
    }

    /// The next value, which has that tag.
    fn take(&mut self, tag: u8) -> Option<&'b [u8]> {
        self.next().filter(|(found, _)| *found == tag).map(|(_, value)| value)
    }

    /// Passes over the next one if it has that tag.
    fn skip_if(&mut self, tag: u8) {
        if self.0.first() == Some(&tag) {
            self.next();
        }
    }

    /// The next value, which is a time: seconds since 1970.
    fn time(&mut self) -> Option<u64> {
        let (tag, value) = self.next()?;
        let digits = value.strip_suffix(b"Z").filter(|digits| digits.iter().all(u8::is_ascii_digit))?;
        let number = |digits: &[u8]| digits.iter().fold(0, |sum, digit| sum * 10 + u64::from(digit - b'0'));
        let (year, rest) = match (tag, digits.len()) {
            (UTC_TIME, 12) => {
                let year = number(&digits[..2]);
                (year + if year < 50 { 2000 } else { 1900 }, &digits[2..])
            }
            (GENERALIZED_TIME, 14) => (number(&digits[..4]), &digits[4..]),
            _ => return None,
        };
        let [month, day, hour, minute, second] = [0, 2, 4, 6, 8].map(|from| number(&rest[from..from + 2]));
        let days = days_since_1970(year, month, day)?;
        Some(days * 86_400 + hour * 3_600 + minute * 60 + second)
    }
}

/// Days from 1970-01-01 to a day of the Gregorian calendar.
fn days_since_1970(year: u64, month: u64, day: u64) -> Option<u64> {
    if !(1970..=9999).contains(&year) || !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    // Years begin in March, so that a leap day is the last of its year.
    let (year, month) = if month > 2 { (year, month - 3) } else { (year - 1, month + 9) };
    let days = year * 365 + year / 4 - year / 100 + year / 400 + (month * 153 + 2) / 5 + day - 1;
    // 1970-01-01, counted in the same way. January and February of that year lie before it.
    days.checked_sub(719_468)
}

#[cfg(test)]
mod tests;
