// SPDX-License-Identifier: GPL-2.0

//! Something that happens again and again, and that one can wait for.
//!
//! C header: [`include/linux/wait.h`](srctree/include/linux/wait.h)

use crate::bindings;
use kernel::{
    prelude::*,
    sync::atomic::{Acquire, Atomic},
    sync::LockClassKey,
    types::Opaque,
};

/// An event that is announced to all who wait for it.
///
/// Who waits first notes how often it has happened ([`now`](Self::now)), then looks whether it has to wait at all, and
/// waits for the event to happen once more than noted. So nothing is missed, and no lock is needed around the look.
///
/// # Invariants
///
/// `queue` is initialised.
#[pin_data]
pub struct Event {
    #[pin]
    queue: Opaque<bindings::wait_queue_head>,
    count: Atomic<i32>,
}

/// How often an [`Event`] had happened.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Seen(i32);

// SAFETY: Wait queues are used from any thread.
unsafe impl Send for Event {}
// SAFETY: As above; they have a lock of their own.
unsafe impl Sync for Event {}

impl Event {
    /// An event that has not happened.
    pub fn new(name: &'static CStr, class: Pin<&'static LockClassKey>) -> impl PinInit<Self> {
        pin_init!(Self {
            queue <- Opaque::ffi_init(|queue| {
                // SAFETY: `queue` is pinned memory for a wait queue; name and class are static.
                unsafe {
                    bindings::__init_waitqueue_head(queue, name.as_char_ptr(), class.as_ptr())
                }
            }),
            count: Atomic::new(0),
        })
    }

    /// How often it has happened. Any context.
    #[inline]
    pub fn now(&self) -> Seen {
        Seen(self.count.load(Acquire))
    }

    /// It happens: all who wait are woken. Any context; does not sleep.
    pub fn announce(&self) {
        // SAFETY: The queue is initialised by the type invariant. The count has the layout of an `atomic_t`.
        unsafe { bindings::kfs_event_announce(self.queue.get(), self.count.as_ptr().cast()) };
    }

    /// Waits until it has happened since `seen`, at most `ms` milliseconds. Whether it has. Sleeps; signals do not end it.
    pub fn wait(&self, seen: Seen, ms: u32) -> bool {
        // SAFETY: As in `announce()`; both live as long as `self` is borrowed.
        unsafe {
            bindings::kfs_event_wait(self.queue.get(), self.count.as_ptr().cast(), seen.0, ms)
        }
    }
}

/// Makes an [`Event`] with a lock class of its own.
#[macro_export]
macro_rules! new_event {
    ($name:literal) => {
        $crate::sync::Event::new(::kernel::c_str!($name), ::kernel::sync::static_lock_class!())
    };
}

#[kernel::macros::kunit_tests(kfs_event)]
mod tests {
    use crate::work::{Kind, WorkQueue};
    use kernel::{prelude::*, sync::Arc};

    #[test]
    fn nothing_is_missed() -> Result {
        let event = Arc::pin_init(crate::new_event!("kfs_test"), GFP_KERNEL)?;
        let seen = event.now();
        assert!(!event.wait(seen, 1));
        event.announce();
        // It happened before the wait, but after the look.
        assert!(event.wait(seen, 10_000));
        assert!(!event.wait(event.now(), 1));

        let queue = WorkQueue::new(c"kfs-test", Kind::Unbound)?;
        for _ in 0..100 {
            let (seen, other) = (event.now(), event.clone());
            queue.try_spawn(GFP_KERNEL, move || other.announce())?;
            assert!(event.wait(seen, 10_000));
        }
        Ok(())
    }
}
