// SPDX-License-Identifier: GPL-2.0
//! Buckets and space.
//!
//! Of allocation this is what reading needs: how much space is in use, and whether a cached copy's
//! bucket still holds it.

pub mod accounting;
pub mod bucket_gens;
