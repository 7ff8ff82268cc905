//! What every binding needs: taking a batch from Python with the index of an offending item in the error.

use std::sync::{Mutex, MutexGuard, PoisonError};

use pyo3::exceptions::{PyOverflowError, PyTypeError, PyUnicodeError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyString};

/// Takes the items of a sequence one by one; errors say `name[index]`.
///
/// A `str` or `bytes` object is refused: it is a sequence of its own parts, never the batch that was meant.
fn extract_items<'py, T>(
    values: &Bound<'py, PyAny>,
    name: &str,
    expected: &str,
    extract: impl Fn(&Bound<'py, PyAny>) -> PyResult<T>,
) -> PyResult<Vec<T>> {
    if values.is_instance_of::<PyString>() || values.is_instance_of::<PyBytes>() {
        let kind = values.get_type().name()?;
        return Err(PyTypeError::new_err(format!(
            "{name} is a single {kind}, not a sequence"
        )));
    }
    let mut items = Vec::with_capacity(values.len().unwrap_or(0));
    for (index, item) in values.try_iter()?.enumerate() {
        let item = item?;
        items.push(extract(&item).map_err(|error| {
            let py = values.py();
            if error.is_instance_of::<PyUnicodeError>(py) {
                PyValueError::new_err(format!("{name}[{index}] holds a lone surrogate"))
            } else if error.is_instance_of::<PyOverflowError>(py) {
                PyValueError::new_err(format!("{name}[{index}] is outside the range of {expected}"))
            } else {
                let kind = item
                    .get_type()
                    .name()
                    .map_or_else(|_| "object".to_owned(), |kind| kind.to_string());
                PyTypeError::new_err(format!("{name}[{index}] is {kind}, not {expected}"))
            }
        })?);
    }
    Ok(items)
}

/// Takes a batch of texts without copying them.
pub fn extract_texts(values: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<PyBackedStr>> {
    extract_items(values, name, "str", |item| item.extract::<PyBackedStr>())
}

/// Takes a batch of messages without copying them.
pub fn extract_messages(values: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<PyBackedBytes>> {
    extract_items(values, name, "bytes", |item| {
        item.extract::<PyBackedBytes>().map_err(PyErr::from)
    })
}

/// Takes unsigned 64-bit integers.
pub fn extract_u64s(values: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<u64>> {
    extract_items(values, name, "an unsigned 64-bit int", |item| item.extract::<u64>())
}

/// Takes signed 64-bit integers.
pub fn extract_i64s(values: &Bound<'_, PyAny>, name: &str) -> PyResult<Vec<i64>> {
    extract_items(values, name, "a signed 64-bit int", |item| item.extract::<i64>())
}

/// Locks with the GIL released, so that a thread that waits here never holds up the one at work.
pub fn with_lock<S: Send, R: Send>(py: Python<'_>, state: &Mutex<S>, work: impl FnOnce(&mut S) -> R + Send) -> R {
    py.detach(|| {
        let mut guard: MutexGuard<'_, S> = state.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut guard)
    })
}
