// SPDX-License-Identifier: GPL-2.0
//! Messages for people.
//!
//! Every line names the filesystem (its external UUID) or, before that is known, the device. While a
//! mount is in progress messages go through a [`Log`], so that the process that mounts sees them too.

use core::fmt;

/// How much a message matters.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Severity {
    /// Something the user asked for is refused or lost.
    Error,
    /// Something is wrong but work goes on.
    Warning,
    /// For information; printed when the mount is verbose or the event is rare.
    Info,
}

/// Where messages of a mount in progress go. May be called where sleeping is allowed only.
pub trait Log {
    /// Takes one line, without a newline.
    fn line(&self, severity: Severity, text: fmt::Arguments<'_>);

    /// Takes an error line.
    fn error(&self, text: fmt::Arguments<'_>) {
        self.line(Severity::Error, text)
    }

    /// Takes a warning line.
    fn warn(&self, text: fmt::Arguments<'_>) {
        self.line(Severity::Warning, text)
    }

    /// Takes an information line.
    fn info(&self, text: fmt::Arguments<'_>) {
        self.line(Severity::Info, text)
    }
}

/// The kernel log alone.
pub struct KernelLog;

impl Log for KernelLog {
    fn line(&self, severity: Severity, text: fmt::Arguments<'_>) {
        match severity {
            Severity::Error => kernel::pr_err!("{text}\n"),
            Severity::Warning => kernel::pr_warn!("{text}\n"),
            Severity::Info => kernel::pr_info!("{text}\n"),
        }
    }
}

/// Prints an error line about `$who` (anything that can print itself: a filesystem, a device).
#[macro_export]
macro_rules! fs_err {
    ($who:expr, $fmt:literal $($arg:tt)*) => {
        ::kernel::pr_err!(
            "{}\n",
            ::core::format_args!("{}: {}", $who, ::core::format_args!($fmt $($arg)*))
        )
    };
}

/// Prints a warning line about `$who`.
#[macro_export]
macro_rules! fs_warn {
    ($who:expr, $fmt:literal $($arg:tt)*) => {
        ::kernel::pr_warn!(
            "{}\n",
            ::core::format_args!("{}: {}", $who, ::core::format_args!($fmt $($arg)*))
        )
    };
}

/// Prints an information line about `$who`.
#[macro_export]
macro_rules! fs_info {
    ($who:expr, $fmt:literal $($arg:tt)*) => {
        ::kernel::pr_info!(
            "{}\n",
            ::core::format_args!("{}: {}", $who, ::core::format_args!($fmt $($arg)*))
        )
    };
}
