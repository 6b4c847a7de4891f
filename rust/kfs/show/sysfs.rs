// SPDX-License-Identifier: GPL-2.0

//! Directories and attributes under `/sys/fs/`.
//!
//! C headers: [`include/linux/kobject.h`](srctree/include/linux/kobject.h),
//! [`include/linux/sysfs.h`](srctree/include/linux/sysfs.h)

use super::{
    registry::{Registry, User},
    PageWriter,
};
use crate::{bindings, block::BlockDevice};
use core::ptr::NonNull;
use kernel::{
    container_of,
    error::to_result,
    fmt, new_mutex,
    page::PAGE_SIZE,
    prelude::*,
    sync::{Arc, Mutex},
    types::Opaque,
};

type Show = KBox<dyn Fn(&mut PageWriter<'_>) -> fmt::Result + Send + Sync>;
type Store = KBox<dyn Fn(&str) -> Result + Send + Sync>;

/// A directory of attributes. Clones are the same directory.
///
/// When the last clone is dropped, and there are no directories in it any more, it is removed with its attributes. That waits
/// for closures of the attributes that are running; so a closure must not own the directory it belongs to.
#[derive(Clone)]
pub struct Dir {
    inner: Arc<Inner>,
    // Dropped after `inner`: the order of the fields.
    _shared: Option<Arc<User<Arc<Inner>>>>,
}

/// The directories in `/sys/fs`.
static TOP: Registry<Arc<Inner>> = Registry::new();

/// # Invariants
///
/// `kobj` is the `kobj` field of a [`Node`] in a box, and this value holds a reference to it. It is part of
/// sysfs unless `in_sysfs` is false.
#[pin_data(PinnedDrop)]
struct Inner {
    kobj: NonNull<bindings::kobject>,
    /// Keeps the parent's directory in place.
    _parent: Option<Dir>,
    #[pin]
    attributes: Mutex<KVec<KBox<Attribute>>>,
}

// SAFETY: kobjects are counted atomically and used from any thread; the closures are `Send` and `Sync`.
unsafe impl Send for Inner {}
// SAFETY: As above.
unsafe impl Sync for Inner {}

/// The memory of a kobject: it frees itself when the last reference is gone, which may be later than its
/// directory.
#[repr(C)]
struct Node {
    kobj: Opaque<bindings::kobject>,
}

/// An attribute with its closures.
///
/// # Invariants
///
/// `attribute` is initialised.
#[repr(C)]
struct Attribute {
    attribute: Opaque<bindings::attribute>,
    name: &'static CStr,
    show: Show,
    store: Option<Store>,
}

static SYSFS_OPS: bindings::sysfs_ops = bindings::sysfs_ops {
    show: Some(show),
    store: Some(store),
};

/// `kobj_type` holds pointers, which are constant here.
struct Type(bindings::kobj_type);

// SAFETY: Nobody writes to it.
unsafe impl Sync for Type {}

static TYPE: Type = Type(bindings::kobj_type {
    release: Some(release),
    sysfs_ops: &SYSFS_OPS,
    default_groups: core::ptr::null_mut(),
    child_ns_type: None,
    namespace: None,
    get_ownership: None,
});

impl Dir {
    /// The directory `/sys/fs/NAME`, which is made by the first call and removed with the last of the directories that calls
    /// with this name returned. May sleep.
    ///
    /// # Errors
    ///
    /// `EEXIST`, with a complaint in the log, if somebody else has made it; `ENOMEM`.
    pub fn in_fs(name: &CStr) -> Result<Self> {
        // SAFETY: Set at boot, constant since.
        let make = || Self::make(name, unsafe { bindings::fs_kobj }, None);
        let (inner, user) = TOP.join(name, make)?;
        Ok(Self {
            inner,
            _shared: Some(Arc::new(user, GFP_KERNEL)?),
        })
    }

    /// Makes a directory in this one. May sleep; errors as [`in_fs`](Self::in_fs).
    pub fn subdir(&self, name: &CStr) -> Result<Self> {
        Ok(Self {
            inner: Self::make(name, self.inner.kobj.as_ptr(), Some(self.clone()))?,
            _shared: None,
        })
    }

    fn make(name: &CStr, parent: *mut bindings::kobject, keep: Option<Dir>) -> Result<Arc<Inner>> {
        let node = KBox::new(
            Node {
                // A kobject has to be all zeroes before it is initialised.
                kobj: Opaque::zeroed(),
            },
            GFP_KERNEL,
        )?;
        let node = KBox::into_raw(node);
        // SAFETY: From a box just now.
        let kobj = unsafe { (*node).kobj.get() };
        // SAFETY: Zeroed memory, which from here on belongs to the kobject's count: `release` frees it.
        unsafe { bindings::kobject_init(kobj, &TYPE.0) };
        // SAFETY: The format takes one string. The parent exists: it is constant, or `keep` has it.
        let added = to_result(unsafe {
            bindings::kobject_add(kobj, parent, c"%s".as_char_ptr(), name.as_char_ptr())
        });
        let undo = || {
            // SAFETY: Initialised; harmless if it was not added.
            unsafe { bindings::kobject_del(kobj) };
            // SAFETY: This is the only reference.
            unsafe { bindings::kobject_put(kobj) };
        };
        if let Err(error) = added {
            undo();
            return Err(error);
        }
        let inner = Arc::pin_init(
            pin_init!(Inner {
                // SAFETY: From a box.
                // INVARIANT: Initialised and added above.
                kobj: unsafe { NonNull::new_unchecked(kobj) },
                _parent: keep,
                attributes <- new_mutex!(KVec::new(), "sysfs::Dir::attributes"),
            }),
            GFP_KERNEL,
        );
        if inner.is_err() {
            undo();
        }
        inner
    }

    /// Adds the file `name`, which reads as what `show` prints: at most a page, the rest is cut off.
    ///
    /// May sleep. Fails with `EEXIST` or `ENOMEM`. `show` runs in process context and may sleep.
    pub fn read_only<F>(&self, name: &'static CStr, show: F) -> Result
    where
        F: Fn(&mut PageWriter<'_>) -> fmt::Result + Send + Sync + 'static,
    {
        self.add(name, KBox::new(show, GFP_KERNEL)?, None)
    }

    /// Adds the file `name`, which reads as what `show` prints, and calls `store` with what is written to it, less
    /// white space at both ends.
    pub fn read_write<F, G>(&self, name: &'static CStr, show: F, store: G) -> Result
    where
        F: Fn(&mut PageWriter<'_>) -> fmt::Result + Send + Sync + 'static,
        G: Fn(&str) -> Result + Send + Sync + 'static,
    {
        let store: Store = KBox::new(store, GFP_KERNEL)?;
        self.add(name, KBox::new(show, GFP_KERNEL)?, Some(store))
    }

    fn add(&self, name: &'static CStr, show: Show, store: Option<Store>) -> Result {
        let mode = if store.is_some() { 0o644 } else { 0o444 };
        // INVARIANT: Initialised next.
        let attribute = KBox::new(
            Attribute {
                attribute: Opaque::zeroed(),
                name,
                show,
                store,
            },
            GFP_KERNEL,
        )?;
        let raw = attribute.attribute.get();
        // SAFETY: The attribute is ours; its name is a string and static.
        unsafe { bindings::kfs_attribute_init(raw, name.as_char_ptr(), mode) };
        let mut attributes = self.inner.attributes.lock();
        if attributes.iter().any(|other| other.name == name) {
            return Err(EEXIST);
        }
        attributes.push(attribute, GFP_KERNEL)?;
        // SAFETY: The directory exists by the invariant of `Inner`. The attribute stays in its box until the directory is removed.
        let added = to_result(unsafe { bindings::kfs_sysfs_create_file(self.inner.kobj.as_ptr(), raw) });
        if added.is_err() {
            attributes.pop();
        }
        added
    }

    /// Adds a symbolic link to the directory of a block device.
    pub fn link(&self, name: &CStr, device: &BlockDevice) -> Result {
        // SAFETY: The directory exists by the invariant of `Inner`, and the device is open.
        to_result(unsafe {
            let target = bindings::kfs_bdev_kobj(device.as_raw());
            bindings::sysfs_create_link(self.inner.kobj.as_ptr(), target, name.as_char_ptr())
        })
    }
}

#[pinned_drop]
impl PinnedDrop for Inner {
    fn drop(self: Pin<&mut Self>) {
        // SAFETY: By the type invariant. This removes the directory and what is in it, and waits for accesses, so that the attributes
        // can be dropped next. Directories in it are gone: they hold references to this one.
        unsafe { bindings::kobject_del(self.kobj.as_ptr()) };
        // SAFETY: This gives up the reference of the type invariant.
        unsafe { bindings::kobject_put(self.kobj.as_ptr()) };
    }
}

/// # Safety
///
/// Called by the kobject core when the last reference to a [`Node`] is gone.
unsafe extern "C" fn release(kobj: *mut bindings::kobject) {
    let kobj: *mut Opaque<bindings::kobject> = kobj.cast();
    // SAFETY: By the caller's promise; `make` took it out of a box.
    drop(unsafe { KBox::from_raw(container_of!(kobj, Node, kobj)) });
}

/// # Safety
///
/// `attribute` is the field of an [`Attribute`] that lives for `'a`.
unsafe fn attribute_of<'a>(attribute: *mut bindings::attribute) -> &'a Attribute {
    let attribute: *mut Opaque<bindings::attribute> = attribute.cast();
    // SAFETY: By the caller's promise.
    unsafe { &*container_of!(attribute, Attribute, attribute) }
}

/// # Safety
///
/// Called by sysfs for an attribute of a [`Dir`], with a page of memory.
unsafe extern "C" fn show(
    _kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    page: *mut c_char,
) -> isize {
    // SAFETY: The directory's removal waits for this call before it drops attributes.
    let attribute = unsafe { attribute_of(attribute) };
    // SAFETY: sysfs passes a page, filled with zeroes, for this call's use.
    let page = unsafe { core::slice::from_raw_parts_mut(page.cast::<u8>(), PAGE_SIZE) };
    // sysfs wants room for a NUL.
    let Some(room) = page.get_mut(..PAGE_SIZE - 1) else {
        return 0;
    };
    let mut writer = PageWriter::new(room);
    match (attribute.show)(&mut writer) {
        Err(_) if !writer.is_full() => EIO.to_errno() as isize,
        _ => writer.written() as isize,
    }
}

/// # Safety
///
/// Called by sysfs for an attribute of a [`Dir`], with `len` bytes at `text`.
unsafe extern "C" fn store(
    _kobj: *mut bindings::kobject,
    attribute: *mut bindings::attribute,
    text: *const c_char,
    len: usize,
) -> isize {
    // SAFETY: The directory's removal waits for this call before it drops attributes.
    let attribute = unsafe { attribute_of(attribute) };
    // SAFETY: By the caller's promise.
    let text = unsafe { core::slice::from_raw_parts(text.cast::<u8>(), len) };
    let Some(store) = &attribute.store else {
        return EPERM.to_errno() as isize;
    };
    let Ok(text) = core::str::from_utf8(text) else {
        return EINVAL.to_errno() as isize;
    };
    match store(text.trim()) {
        Ok(()) => len as isize,
        Err(error) => error.to_errno() as isize,
    }
}
