// SPDX-License-Identifier: GPL-2.0
//! From what is on the devices to a filesystem that can be changed.
//!
//! A filesystem that was not shut down cleanly is whole as soon as the keys of its journal lie over the btrees, so reading needs
//! nothing of this. Changing it does: the keys have to get into the nodes ([`replay`]) before the journal has room for new ones.
//! The order of a mount for writing: [`verdict`] says whether it is possible at all; superblock, journal, btrees and allocator start;
//! a new filesystem is initialised ([`initialise`]), any other replayed; [`passes`] bring up to date what has to be.
//!
//! Nothing is repaired: what does not fit is refused with the reason.

pub mod initialise;
pub mod passes;
pub mod replay;
pub mod verdict;

pub use initialise::initialise;
pub use replay::replay;
