//! Numbers in headers, least significant byte first, of files that may be cut short.

/// The 16-bit number at `at`, or nothing if the file ends before it does.
pub(super) fn read_u16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|number| u16::from_le_bytes(*number))
}

/// The 32-bit number at `at`, or nothing if the file ends before it does.
pub(super) fn read_u32(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|number| u32::from_le_bytes(*number))
}
