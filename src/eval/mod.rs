//! Runs a classifier over a dataset, and says how well it does.
//!
//! In come a classifier and image files with labels; out go scores of each image, their sums, and files and
//! pages of them. May use `input`, `weights` and `network`.
//!
//! ```text
//! dataset        which images there are, and what each of them shows
//! pipeline       images -> scores, a batch at a time
//! scores         what the network says of one image
//! tally          the sums of all scores; accuracy, classes and summary are made of it
//! corruptions    the errors on ImageNet-C, and their mean
//! run, shard     what tells one evaluation from another, and a part of one
//! predictions    files of all scores, which can be continued and put together
//! compare        two files of predictions, image by image
//! report         pages to look at
//! ```
//!
//! ```
//! use std::ops::ControlFlow;
//!
//! use qlnet::eval::dataset::{Classes, Dataset, LabelFiles, Listing, Selection};
//! use qlnet::eval::{Pipeline, Tally, evaluate};
//! use qlnet::{Classifier, Error};
//!
//! let classifier = Classifier::from_model("qlnet-digits")?;
//! let images = Listing::new("samples/digits-held-out.tar".as_ref())?;
//! let dataset = Dataset::new(images, &Classes::new(classifier.labels()), LabelFiles::default())?;
//! let dataset = dataset.select(Selection::First(40));
//! let mut tally = Tally::default();
//! evaluate(&classifier, &dataset, 0..dataset.images(), Pipeline::default(), |rows| {
//!     rows.iter().for_each(|row| tally.add(row, None));
//!     println!("{} of {} images", tally.images, dataset.images());
//!     Ok::<_, Error>(ControlFlow::Continue(()))
//! })?;
//! assert!(tally.top1().is_some_and(|accuracy| accuracy.value > 0.9));
//! # Ok::<(), Error>(())
//! ```

mod accuracy;
pub mod compare;
pub mod corruptions;
pub mod dataset;
pub mod per_class;
mod pipeline;
pub mod predictions;
pub mod report;
mod run;
mod scores;
mod shard;
mod summary;
mod tally;

pub use accuracy::Accuracy;
pub use pipeline::{Pipeline, evaluate, prepare};
pub use run::Run;
pub use scores::{Row, Scores, TOP};
pub use shard::Shard;
pub use summary::Summary;
pub use tally::{BINS, Bin, ClassTally, Confusion, Failed, Mistake, Tally};
