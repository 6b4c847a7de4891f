// SPDX-License-Identifier: GPL-2.0
//! The encryption key, itself encrypted with a passphrase or plain.

use zerocopy::byteorder::little_endian::U64;
use zerocopy::{FromBytes as _, IntoBytes as _};
use zerocopy_derive::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::Field;
use crate::checksum::{Cipher, Nonce};
use crate::error::Invalid;
use crate::magic::Uuid;

/// Says that a key is plain: the bytes `bch**key`.
pub const KEY_MAGIC: u64 = u64::from_le_bytes(*b"bch**key");
/// Salt of the passphrase's scrypt.
pub const KDF_SALT: [u8; 7] = *b"bcache\0";

/// A key with the magic that tells whether decrypting it worked (40 bytes).
#[derive(Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct StoredKey {
    /// [`KEY_MAGIC`] if the key is plain.
    pub magic: U64,
    /// The key.
    pub key: [u8; 32],
}

/// The payload of the field (56 bytes).
#[derive(Copy, Clone, PartialEq, Eq, FromBytes, IntoBytes, KnownLayout, Immutable, Unaligned)]
#[repr(C)]
pub struct Crypt {
    /// Bits 0..4: how the passphrase becomes a key; 0 for scrypt.
    pub flags: U64,
    /// Binary logarithms of scrypt's N, r and p, 16 bits each.
    pub kdf_flags: U64,
    /// The master key.
    pub key: StoredKey,
}

const _: () = assert!(core::mem::size_of::<Crypt>() == 56);

impl core::fmt::Debug for Crypt {
    /// Does not show the key.
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        f.debug_struct("Crypt")
            .field("kdf", &self.scrypt())
            .field("is_plain", &self.is_plain())
            .finish_non_exhaustive()
    }
}

impl Crypt {
    /// Reads the field and checks it. Errors count bytes from its start.
    pub fn parse(field: &Field<'_>) -> Result<Self, Invalid> {
        let payload = field.payload().as_bytes();
        let Ok((crypt, _)) = Crypt::read_from_prefix(payload) else {
            let got = field.bytes().len() as u64;
            return Err(Invalid::plain("crypt: field too short", 0, got, 64));
        };
        let kdf = crypt.flags.get() & 0xf;
        if kdf != 0 {
            return Err(Invalid::plain(
                "crypt: unknown kind of passphrase",
                8,
                kdf,
                0,
            ));
        }
        Ok(crypt)
    }

    /// Whether the key can be used without a passphrase.
    pub fn is_plain(&self) -> bool {
        self.key.magic.get() == KEY_MAGIC
    }

    /// Binary logarithms of scrypt's N, r, p.
    pub fn scrypt(&self) -> [u16; 3] {
        let f = self.kdf_flags.get();
        [f as u16, (f >> 16) as u16, (f >> 32) as u16]
    }

    /// The master key, if it is stored plain.
    pub fn plain_key(&self) -> Option<[u8; 32]> {
        self.is_plain().then_some(self.key.key)
    }

    /// The master key, decrypted with the passphrase's key; `None` if that is the wrong one.
    pub fn unlock(&self, passphrase: &dyn Cipher, uuid: &Uuid) -> Option<[u8; 32]> {
        let mut key = self.key;
        passphrase.crypt(Nonce::master_key(uuid), key.as_mut_bytes());
        (key.magic.get() == KEY_MAGIC).then_some(key.key)
    }
}
