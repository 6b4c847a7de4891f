// SPDX-License-Identifier: GPL-2.0

//! Plugging.
//!
//! C header: [`include/linux/blkdev.h`](srctree/include/linux/blkdev.h)

use crate::bindings;
use kernel::types::Opaque;

/// Calls `batch` and holds back the transfers it starts, so that neighbours are merged and the device is told of all at
/// once; they go out when `batch` returns, or sleeps.
///
/// Waiting in `batch` for a transfer it has started is no problem for that reason. Nested calls count as one.
pub fn plugged<R>(batch: impl FnOnce() -> R) -> R {
    let plug = Opaque::<bindings::blk_plug>::uninit();
    // SAFETY: `plug` stays in place until it is finished; there is no way out of this function in between, as kernel code
    // does not unwind.
    unsafe { bindings::blk_start_plug(plug.get()) };
    let result = batch();
    // SAFETY: Started above, in this task.
    unsafe { bindings::blk_finish_plug(plug.get()) };
    result
}
