//! The names by which a model's classes are known.

use std::collections::HashMap;

use crate::weights::registry::Label;

/// The names by which a model's classes are known: WordNet ids, labels and indices.
#[derive(Clone)]
pub struct Classes {
    pub(super) count: usize,
    pub(super) by_wnid: HashMap<String, u32>,
    /// `None` for a text that several classes have: ImageNet has two cranes.
    by_text: HashMap<String, Option<u32>>,
    /// What numbers mean where they are no indices.
    by_number: Option<HashMap<u32, u32>>,
}

impl Classes {
    /// The classes with these labels, in order.
    pub fn new(labels: &[Label]) -> Self {
        let mut classes =
            Self { count: labels.len(), by_wnid: HashMap::new(), by_text: HashMap::new(), by_number: None };
        for (index, label) in (0..).zip(labels) {
            if let Some(wnid) = &label.wnid {
                classes.by_wnid.insert(wnid.clone(), index);
            }
            classes.by_text.entry(label.text.clone()).and_modify(|known| *known = None).or_insert(Some(index));
        }
        // The first of several synonyms will do, unless it is also what another class is called.
        let mut short: HashMap<&str, Option<u32>> = HashMap::new();
        for (index, label) in (0..).zip(labels) {
            if let Some((first, _)) = label.text.split_once(',') {
                short.entry(first).and_modify(|known| *known = None).or_insert(Some(index));
            }
        }
        for (first, index) in short {
            classes.by_text.entry(first.to_string()).or_insert(index);
        }
        classes
    }

    /// The class that a folder is named after: by WordNet id where the model's classes have one, else
    /// by label or by index.
    pub fn of_folder(&self, name: &str) -> Option<u32> {
        if self.by_wnid.is_empty() { self.named(name) } else { self.by_wnid.get(name).copied() }
    }

    /// Whether it has WordNet ids for its classes, so that an index is no usual name for one.
    pub(super) fn have_wnids(&self) -> bool {
        !self.by_wnid.is_empty()
    }

    /// The same classes, known by other numbers than their indices.
    pub(in crate::eval::dataset) fn numbered(&self, by_number: HashMap<u32, u32>) -> Self {
        Self { by_number: Some(by_number), ..self.clone() }
    }

    /// Whether numbers are indices for want of anything that says otherwise.
    pub(super) fn take_numbers_for_indices(&self) -> bool {
        self.by_number.is_none()
    }

    /// The class with that WordNet id, label or number.
    pub fn named(&self, name: &str) -> Option<u32> {
        let number = || {
            let number: u32 = name.parse().ok()?;
            match &self.by_number {
                Some(classes) => classes.get(&number).copied(),
                None => Some(number).filter(|index| (*index as usize) < self.count),
            }
        };
        self.by_wnid.get(name).copied().or_else(|| self.by_text.get(name).copied().flatten()).or_else(number)
    }

    /// What a class may be called, for a message.
    pub(in crate::eval::dataset) fn kinds(&self) -> String {
        let kind = if self.by_wnid.is_empty() { "a label" } else { "a WordNet id" };
        match (&self.by_number, self.count.saturating_sub(1)) {
            (Some(_), _) => format!("{kind} of the model or a number of the class map"),
            (None, last) => format!("{kind} of the model or an index from 0 to {last}"),
        }
    }
}
