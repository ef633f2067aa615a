//! How classes are called on pages.

use crate::page::first_synonym;
use crate::weights::registry::Label;

/// A class: several may have one name, so an index stands beside it.
#[derive(Clone)]
pub struct ClassName {
    /// The model's output.
    pub index: u32,
    /// The first of its names.
    pub short: String,
    /// All of its names.
    pub full: String,
    /// WordNet id, where the model's classes have one.
    pub wnid: Option<String>,
}

impl ClassName {
    /// What a model with these labels calls a class.
    pub fn new(labels: &[Label], index: u32) -> Self {
        match labels.get(index as usize) {
            Some(Label { wnid, text }) => {
                Self { index, short: first_synonym(text).into(), full: text.clone(), wnid: wnid.clone() }
            }
            None => Self { index, short: index.to_string(), full: index.to_string(), wnid: None },
        }
    }

    /// Whether its name does not tell its index.
    pub fn is_numbered(&self) -> bool {
        let index = self.index.to_string();
        self.short != index && self.short != format!("class {index}")
    }

    /// Its name and index, where there is no room for more.
    pub fn text(&self) -> String {
        if self.is_numbered() { format!("{} ({})", self.short, self.index) } else { self.short.clone() }
    }

    /// All that is known of it.
    pub fn title(&self) -> String {
        let Self { index, full, .. } = self;
        match &self.wnid {
            Some(wnid) => format!("{full} (index {index}, {wnid})"),
            None if self.is_numbered() => format!("{full} (index {index})"),
            None => full.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_classes_apart() {
        let imagenet = crate::weights::registry::MODELS[0].labels();
        let mut texts: Vec<String> = (0..1000).map(|index| ClassName::new(&imagenet, index).text()).collect();
        assert_eq!((&*texts[134], &*texts[517]), ("crane (134)", "crane (517)"));
        texts.sort();
        texts.dedup();
        assert_eq!(texts.len(), 1000);
        assert_eq!(ClassName::new(&imagenet, 134).title(), "crane (index 134, n02012849)");
        let plain = Label::for_outputs(Vec::new(), 3);
        let name = ClassName::new(&plain, 2);
        assert_eq!((name.text(), name.title()), ("class 2".into(), "class 2".into()));
        assert_eq!(ClassName::new(&plain, 7).text(), "7");
    }
}
