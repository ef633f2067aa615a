//! Tar archives.

use super::{Chance, changed, number};

const BLOCK: usize = 512;

/// Changes a member, its header or the order of members, and writes the checksums of headers anew.
pub fn tar(bytes: &[u8], chance: &mut Chance) -> Option<Vec<u8>> {
    let mut members = read(bytes);
    if members.is_empty() {
        return None;
    }
    let at = chance.below(members.len());
    match chance.below(8) {
        0 => drop(members.remove(at)),
        1 => {
            let member = members[at].clone();
            members.insert(chance.below(members.len()), member);
        }
        2 => {
            let (header, content) = members[at].split_at(BLOCK);
            let mut content = changed(content, chance);
            content.resize(content.len().next_multiple_of(BLOCK), 0);
            members[at] = [header, &content].concat();
        }
        3 => members[at][156] = chance.one_of(b"0\x0012345678gxLKSVDM"),
        4 => {
            // The size: in octal, or in binary.
            let size = number(chance);
            let text = format!("{:011o}\0", size & 0o77_777_777_777);
            let mut binary = [0x80; 12];
            binary[4..].copy_from_slice(&size.to_be_bytes());
            members[at][124..136].copy_from_slice(if chance.below(3) == 0 { &binary } else { text.as_bytes() });
        }
        5 => {
            let end = 1 + chance.below(99);
            let name = changed(&members[at][..end], chance);
            let end = name.len().min(100);
            members[at][..100].fill(0);
            members[at][..end].copy_from_slice(&name[..end]);
        }
        _ => {
            let header = changed(&members[at][..BLOCK], chance);
            let end = header.len().min(BLOCK);
            members[at][..end].copy_from_slice(&header[..end]);
        }
    }
    for member in members.iter_mut().filter(|_| chance.below(50) > 0) {
        member[148..156].fill(b' ');
        let sum: u32 = member[..BLOCK].iter().map(|byte| u32::from(*byte)).sum();
        member[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }
    let end = chance.one_of(&[1024, 1024, 1024, 512, 0]);
    Some([members.concat(), vec![0; end]].concat())
}

/// The members of an archive, each with its header and in whole blocks.
fn read(mut bytes: &[u8]) -> Vec<Vec<u8>> {
    let mut members = Vec::new();
    while bytes.len() >= BLOCK && bytes[..BLOCK] != [0; BLOCK] {
        let digits = bytes[124..136].iter().filter(|byte| (b'0'..b'8').contains(byte));
        let size = digits.fold(0usize, |size, digit| size.wrapping_mul(8).wrapping_add(usize::from(digit - b'0')));
        let whole = size.min(bytes.len() - BLOCK).next_multiple_of(BLOCK) + BLOCK;
        let (member, rest) = bytes.split_at(whole.min(bytes.len()));
        members.push(member.to_vec());
        bytes = rest;
    }
    members
}
