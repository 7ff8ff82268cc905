//! Binding of [`super::store`].

use std::collections::HashSet;
use std::convert::Infallible;
use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::{SystemTime, UNIX_EPOCH};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{IntoPyDict, PyDict, PyList, PyString};

use super::config::{Config, check_time};
use super::message::LAST_MS;
use super::slices::{PlatformCounts, Totals};
use super::store::{Event, MAX_AHEAD_MS, Status, Store};
use crate::python::{extract_messages, extract_texts, with_lock};

/// A name that the store has already, copied only when Python asks for it.
struct Name(Arc<str>);

impl<'py> IntoPyObject<'py> for &Name {
    type Target = PyString;
    type Output = Bound<'py, PyString>;
    type Error = Infallible;

    fn into_pyobject(self, py: Python<'py>) -> Result<Self::Output, Self::Error> {
        Ok(PyString::new(py, &self.0))
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// Names of the platforms by number, shared by all that one call returns.
type Names = Arc<[Arc<str>]>;

/// Posts a platform: a dict for Python, in order of the platforms' names.
struct NamedCounts {
    names: Names,
    counts: PlatformCounts,
}

impl NamedCounts {
    fn sorted(&self) -> Vec<(&str, u64)> {
        let name = |platform: u32| &*self.names[platform as usize];
        let mut named: Vec<(&str, u64)> = self
            .counts
            .iter()
            .map(|(platform, count)| (name(platform), count))
            .collect();
        named.sort_unstable();
        named
    }
}

impl<'py> IntoPyObject<'py> for &NamedCounts {
    type Target = PyDict;
    type Output = Bound<'py, PyDict>;
    type Error = PyErr;

    fn into_pyobject(self, py: Python<'py>) -> PyResult<Self::Output> {
        self.sorted().into_py_dict(py)
    }
}

impl fmt::Debug for NamedCounts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_map().entries(self.sorted()).finish()
    }
}

/// One symbol over one span of time.
#[pyclass(frozen, get_all, module = "sentimesh._native")]
pub struct WindowStats {
    symbol: Name,
    start_ms: i64,
    end_ms: i64,
    /// Mean polarity weighted by engagement_weight * credibility_score; 0.0 without weight.
    polarity: f64,
    /// Mean credibility; 0.0 without posts.
    credibility: f64,
    post_count: u64,
    unique_authors: u64,
    platform_counts: NamedCounts,
    /// 0 for a window's first closing, and for live reads.
    revision: u32,
}

#[pymethods]
impl WindowStats {
    fn __repr__(&self) -> String {
        format!(
            "WindowStats(symbol={:?}, start_ms={}, end_ms={}, polarity={:?}, credibility={:?}, post_count={}, \
             unique_authors={}, platform_counts={:?}, revision={})",
            self.symbol,
            self.start_ms,
            self.end_ms,
            self.polarity,
            self.credibility,
            self.post_count,
            self.unique_authors,
            self.platform_counts,
            self.revision
        )
    }
}

/// A sliding window that holds at least ``spike_min_mentions``.
#[pyclass(frozen, get_all, module = "sentimesh._native")]
pub struct SlideCount {
    symbol: Name,
    end_ms: i64,
    mention_count: u64,
    /// Mentions per sliding window over the baseline span before the window.
    baseline_rate: f64,
    platform_counts: NamedCounts,
    /// Whether it counts in a post that came after its end.
    late: bool,
}

#[pymethods]
impl SlideCount {
    fn __repr__(&self) -> String {
        format!(
            "SlideCount(symbol={:?}, end_ms={}, mention_count={}, baseline_rate={:?}, platform_counts={:?}, late={})",
            self.symbol,
            self.end_ms,
            self.mention_count,
            self.baseline_rate,
            self.platform_counts,
            if self.late { "True" } else { "False" }
        )
    }
}

/// What became of a batch.
#[pyclass(frozen, get_all, module = "sentimesh._native")]
pub struct BatchResult {
    /// One a message: accepted, duplicate, late, low_credibility, untracked or malformed.
    statuses: Py<PyList>,
    /// Index of a malformed message to what is wrong with it.
    errors: Py<PyDict>,
    /// Index of the message whose time brought it about, and the closed window or slide, in order of time.
    events: Py<PyList>,
}

/// An event with names in place of numbers, made while the GIL is released.
enum Named {
    Window(WindowStats),
    Slide(SlideCount),
}

impl Named {
    fn new(store: &Store, names: &Names, event: Event) -> Self {
        match event {
            Event::Window {
                symbol,
                start_ms,
                revision,
                totals,
            } => Self::Window(stats(store, names, symbol, start_ms, revision, totals)),
            Event::Slide {
                symbol,
                end_ms,
                mention_count,
                baseline_rate,
                platforms: counts,
                late,
            } => Self::Slide(SlideCount {
                symbol: Name(store.symbols()[symbol].clone()),
                end_ms,
                mention_count,
                baseline_rate,
                platform_counts: NamedCounts {
                    names: names.clone(),
                    counts,
                },
                late,
            }),
        }
    }

    fn into_object(self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(match self {
            Self::Window(window) => Py::new(py, window)?.into_any(),
            Self::Slide(slide) => Py::new(py, slide)?.into_any(),
        })
    }
}

fn stats(store: &Store, names: &Names, symbol: usize, start_ms: i64, revision: u32, totals: Totals) -> WindowStats {
    WindowStats {
        symbol: Name(store.symbols()[symbol].clone()),
        start_ms,
        end_ms: start_ms + store.config().window_ms,
        polarity: totals.polarity(),
        credibility: totals.credibility(),
        post_count: totals.count,
        unique_authors: totals.unique_authors,
        platform_counts: NamedCounts {
            names: names.clone(),
            counts: totals.platforms,
        },
        revision,
    }
}

/// Python's words for the statuses, made once.
fn status_words(py: Python<'_>, statuses: &[Status]) -> PyResult<Py<PyList>> {
    let word = |status: &Status| match status {
        Status::Accepted => intern!(py, "accepted"),
        Status::Duplicate => intern!(py, "duplicate"),
        Status::Late => intern!(py, "late"),
        Status::LowCredibility => intern!(py, "low_credibility"),
        Status::Untracked => intern!(py, "untracked"),
        Status::Malformed => intern!(py, "malformed"),
    };
    Ok(PyList::new(py, statuses.iter().map(word))?.unbind())
}

/// Rings of slices, one a tracked symbol, from which every window is read.
#[pyclass(frozen, module = "sentimesh._native")]
pub struct WindowStore(Mutex<Store>);

#[pymethods]
impl WindowStore {
    #[new]
    #[pyo3(signature = (
        symbols, *, window_ms = 300_000, slice_ms = 10_000, span_ms = 7_200_000, allowed_lateness_ms = 0,
        slide_ms = 10_000, spike_window_ms = 60_000, baseline_ms = 3_600_000, spike_min_mentions = 10,
        min_credibility = 0.0, start_ms = None, history_start_ms = None
    ))]
    #[expect(clippy::too_many_arguments, reason = "keyword arguments of the Python constructor")]
    fn new(
        symbols: &Bound<'_, PyAny>,
        window_ms: i64,
        slice_ms: i64,
        span_ms: i64,
        allowed_lateness_ms: i64,
        slide_ms: i64,
        spike_window_ms: i64,
        baseline_ms: i64,
        spike_min_mentions: i64,
        min_credibility: f64,
        start_ms: Option<i64>,
        history_start_ms: Option<i64>,
    ) -> PyResult<Self> {
        let config = Config {
            window_ms,
            slice_ms,
            span_ms,
            allowed_lateness_ms,
            slide_ms,
            spike_window_ms,
            baseline_ms,
            spike_min_mentions,
            min_credibility,
            start_ms,
            history_start_ms,
        };
        config.check().map_err(PyValueError::new_err)?;
        let symbols: Vec<String> = extract_texts(symbols, "symbols")?
            .iter()
            .map(|symbol| symbol.to_string())
            .collect();
        let mut seen = HashSet::new();
        for (index, symbol) in symbols.iter().enumerate() {
            if symbol.is_empty() || !seen.insert(symbol) {
                let wrong = if symbol.is_empty() { "empty" } else { "given twice" };
                return Err(PyValueError::new_err(format!(
                    "symbols[{index}] ({symbol:?}) is {wrong}"
                )));
            }
        }
        Ok(Self(Mutex::new(Store::new(symbols, config))))
    }

    /// Take serialized ScoredPost messages, in order.
    #[pyo3(signature = (messages, clock_ms = None))]
    fn add_batch(&self, py: Python<'_>, messages: &Bound<'_, PyAny>, clock_ms: Option<i64>) -> PyResult<BatchResult> {
        if let Some(clock_ms) = clock_ms {
            check_time("clock_ms", clock_ms).map_err(PyValueError::new_err)?;
        }
        let messages = extract_messages(messages, "messages")?;
        let (statuses, errors, events) = with_lock(py, &self.0, |store| {
            let outcome = store.add_batch(&messages, clock_ms, latest_ms());
            let names: Names = store.platforms().into();
            let name = |(index, event)| (index, Named::new(store, &names, event));
            let events: Vec<(usize, Named)> = outcome.events.into_iter().map(name).collect();
            (outcome.statuses, outcome.errors, events)
        });
        let error_texts = PyDict::new(py);
        for (index, error) in errors {
            error_texts.set_item(index, error)?;
        }
        let event_objects = PyList::empty(py);
        for (index, event) in events {
            event_objects.append((index, event.into_object(py)?))?;
        }
        Ok(BatchResult {
            statuses: status_words(py, &statuses)?,
            errors: error_texts.unbind(),
            events: event_objects.unbind(),
        })
    }

    /// Move the clock (never back) and return what is due, in order of time.
    fn advance(&self, py: Python<'_>, clock_ms: i64) -> PyResult<Vec<Py<PyAny>>> {
        check_time("clock_ms", clock_ms).map_err(PyValueError::new_err)?;
        let events: Vec<Named> = with_lock(py, &self.0, |store| {
            let events = store.advance(clock_ms).into_iter();
            let names: Names = store.platforms().into();
            events.map(|event| Named::new(store, &names, event)).collect()
        });
        events.into_iter().map(|event| event.into_object(py)).collect()
    }

    /// Read the trailing ``window_ms`` up to ``end_ms``, rounded up to a whole slice, of each symbol.
    fn live(&self, py: Python<'_>, symbols: &Bound<'_, PyAny>, end_ms: i64) -> PyResult<Vec<WindowStats>> {
        check_time("end_ms", end_ms).map_err(PyValueError::new_err)?;
        let symbols = extract_texts(symbols, "symbols")?;
        let found: Result<Vec<WindowStats>, usize> = with_lock(py, &self.0, |store| {
            let names: Names = store.platforms().into();
            let read = |(index, symbol): (usize, &str)| {
                let number = store.number(symbol).ok_or(index)?;
                let (start_ms, totals) = store.live(number, end_ms);
                Ok(stats(store, &names, number, start_ms, 0, totals))
            };
            symbols.iter().map(|symbol| &**symbol).enumerate().map(read).collect()
        });
        found.map_err(|index| {
            let symbol: &str = &symbols[index];
            PyValueError::new_err(format!("symbols[{index}] ({symbol:?}) is not tracked"))
        })
    }

    #[getter]
    fn clock_ms(&self, py: Python<'_>) -> Option<i64> {
        with_lock(py, &self.0, |store| store.clock_ms())
    }
}

/// The largest time that a post of a recording can have: none is from the future.
fn latest_ms() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.ok()
        .and_then(|now| i64::try_from(now.as_millis()).ok())
        .map_or(LAST_MS, |now_ms| now_ms.saturating_add(MAX_AHEAD_MS))
}
