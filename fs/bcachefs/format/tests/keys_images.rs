// SPDX-License-Identifier: GPL-2.0
//! Every key of real filesystems: valid by the rules for readers and for writers, printable,
//! rebuilt to the same bytes; every name where its hash says.
//!
//! Looks at the images kept beside the tests, at the fixtures of the system tests, and at those in
//! the folder that `BCACHEFS_FORMAT_IMAGES` names. Images that were not cleanly unmounted are passed
//! over, and encrypted ones without plain key. With `BCACHEFS_PRINT_KEYS` set every key is printed,
//! to compare with what other programs make of it.

#[allow(dead_code)] // shared with the tests of the core structures
mod core {
    mod alg;
    pub mod image;
    pub mod walk;
}

mod keys {
    mod crc;
    mod images;
    #[allow(dead_code)] // shared with the other tests of keys
    mod owned;
    mod rebuild;
}
