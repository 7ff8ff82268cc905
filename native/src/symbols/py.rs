//! Binding of [`super::core`].

use pyo3::exceptions::{PyTypeError, PyValueError};
use pyo3::prelude::*;

use super::core::{Asset, Extractor, Name};
use crate::python::extract_texts;

/// Finds the tracked assets that a text names.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct SymbolExtractor(Extractor);

#[pymethods]
impl SymbolExtractor {
    #[new]
    fn new(assets: &Bound<'_, PyAny>, context_words: &Bound<'_, PyAny>) -> PyResult<Self> {
        let mut taken = Vec::new();
        for (index, item) in assets.try_iter()?.enumerate() {
            type Parts = (String, Vec<(String, bool)>, bool);
            let (symbol, names, is_english_word) = item?.extract::<Parts>().map_err(|error| {
                PyTypeError::new_err(format!(
                    "assets[{index}] is not (symbol, [(name, is_english_word), …], is_english_word): {error}"
                ))
            })?;
            let names = names
                .into_iter()
                .map(|(text, is_english_word)| Name { text, is_english_word });
            taken.push(Asset {
                symbol,
                names: names.collect(),
                is_english_word,
            });
        }
        let context_words: Vec<String> = extract_texts(context_words, "context_words")?
            .iter()
            .map(|word| word.to_string())
            .collect();
        Extractor::new(&taken, &context_words)
            .map(Self)
            .map_err(PyValueError::new_err)
    }

    /// Return each text's symbols, each once, in order of first appearance.
    fn extract(&self, py: Python<'_>, texts: &Bound<'_, PyAny>) -> PyResult<Vec<Vec<&str>>> {
        let texts = extract_texts(texts, "texts")?;
        Ok(py.detach(|| texts.iter().map(|text| self.0.extract(text)).collect()))
    }
}
