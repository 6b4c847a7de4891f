// SPDX-License-Identifier: GPL-2.0

//! Memory for code that memory reclaim may be waiting for.
//!
//! - [`NofsScope`]: allocations of this task do not enter file systems while the guard lives; [`NoReclaimScope`]: they do
//!   not reclaim at all.
//! - [`Mempool`] and [`BufferPool`]: allocations that wait instead of failing, because a reserve comes back to them.
//! - [`insist`]: small allocations that are tried until they succeed.
//! - [`Shrinker`]: caches that give memory back when the kernel asks.
//! - [`PerCpu`] and [`Counters`]: data each CPU has its own copy of.
//! - [`AtomicWords`]: a buffer that several tasks write at once.
//! - [`prefetch`]: what is needed soon.
//!
//! Ordinary allocations are those of [`kernel::alloc`].

mod counters;
mod insist;
mod mempool;
mod nofs;
mod noreclaim;
mod percpu;
mod prefetch;
mod shrinker;
mod words;

pub use self::counters::Counters;
pub use self::insist::insist;
pub use self::mempool::{BufferPool, Mempool, PoolBox, PoolBuf};
pub(crate) use self::mempool::RawPool;
pub use self::nofs::NofsScope;
pub use self::noreclaim::NoReclaimScope;
pub use self::percpu::PerCpu;
pub use self::prefetch::prefetch;
pub use self::shrinker::{Reclaim, Scanned, Shrink, Shrinker, Tuning};
pub use self::words::AtomicWords;
