//! Encoding primitives: little-endian integers, length-prefixed bytes, checksums, limits.
//!
//! The lowest floor. It knows no type of the layers above: each of them encodes itself with these
//! words on its own floor. Hot formats (entries, messages, records) are written by hand, so that
//! their bytes can be drawn in docs. Structures that are written rarely (membership, snapshot
//! metadata, identity) go through [`to_bytes`] and [`from_bytes`], which keep bincode behind one
//! door.
//!
//! Beside them stand the limits of names and addresses, the one reader of `host:port`, and base64.
//!
//! Bytes from a disk, a peer or a client never panic here: every read is bounded and returns
//! [`DecodeError`].

mod address;
mod base64;
mod frame;
mod level;
mod structure;
mod wire;

pub use address::{
    ADDRESS_BYTES_MAX, AddressError, HostPort, NAME_BYTES_MAX, NameError, check_name, host_of, is_link_local,
    is_loopback,
};
pub use base64::{Base64Error, from_base64, to_base64, to_base64_url};
pub use frame::{FRAME_HEADER_BYTES, decode_frame, encode_frame};
pub use level::{FeatureLevel, FeatureLevels};
pub use structure::{from_bytes, from_bytes_within, to_bytes};
pub use wire::{COUNTER_MAX, DecodeError, Reader, Writer, checksum, checksum_parts};

#[cfg(test)]
mod tests;
