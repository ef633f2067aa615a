//! What pages and pictures that people look at are made of.

pub(crate) mod colour;
