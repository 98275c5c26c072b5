//! The copy of the repository that holds all planted bugs, and its build.

use super::combine::{Change, combine};
use super::patch::Patch;
use super::refresh::refresh;
use super::sources::Sources;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// What neither the simulator's build nor the library's tests read.
const LEFT_OUT: [&str; 1] = ["fuzz"];

/// The copy is built with the cfg `mutants`, and lies below the repository: what is said there
/// stays in force.
const CONFIG: &str = r#"[target.'cfg(all())']
rustflags = ["--cfg", "mutants", "-A", "warnings"]

[build]
target-dir = ".."
"#;

/// Where the copy's registry reads which bug is planted in a process of tests.
pub(super) const PLANTED: &str = "INFINITYSTORE_PLANTED";

/// The planted bugs, and the sources that they are planted in.
pub(super) struct Repository {
    root: PathBuf,
    sources: Sources,
    patches: Vec<Patch>,
}

impl Repository {
    /// Reads both.
    ///
    /// # Errors
    /// A file cannot be read, or is no patch.
    pub(super) fn open() -> Result<Self, String> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap_or(Path::new(".")).to_owned();
        let mut files = BTreeMap::new();
        for part in ["src", "sim/src", "sim/mutants"] {
            read_tree(&root, Path::new(part), &mut files)?;
        }
        let (mut sources, mut patches, mut faults) = (Sources::new(), Vec::new(), Vec::new());
        for (path, content) in files {
            let Ok(text) = String::from_utf8(content) else { continue };
            match path.strip_prefix("sim/mutants/").and_then(|name| name.strip_suffix(".patch")) {
                Some(name) => match Patch::parse(name, &text) {
                    Ok(patch) => patches.push(patch),
                    Err(fault) => faults.push(fault),
                },
                None => drop(sources.insert(path, text)),
            }
        }
        if faults.is_empty() { Ok(Self { root, sources, patches }) } else { Err(faults.join("\n")) }
    }

    /// How many bugs can be planted.
    pub(super) const fn count(&self) -> usize {
        self.patches.len()
    }

    /// The sources with all bugs in them: those files that are different.
    ///
    /// # Errors
    /// Each place at which a patch does not apply, or changes what it may not.
    pub(super) fn combined(&self) -> Result<Sources, Vec<String>> {
        combined(&self.patches, &self.sources)
    }

    /// Writes the patches anew whose surroundings have moved; the names of those that changed.
    ///
    /// # Errors
    /// Each place that is not found again, or a file that cannot be written. The other patches are
    /// written.
    pub(super) fn refresh(&self) -> Result<Vec<&str>, Vec<String>> {
        let (mut written, mut faults) = (Vec::new(), Vec::new());
        for patch in &self.patches {
            match refresh(patch, &self.sources) {
                Ok(fresh) => {
                    let path = self.root.join(format!("sim/mutants/{}.patch", patch.name));
                    match write_if_different(&path, fresh.render().as_bytes()) {
                        Ok(true) => written.push(patch.name.as_str()),
                        Ok(false) => {}
                        Err(fault) => faults.push(fault),
                    }
                }
                Err(found) => faults.extend(found),
            }
        }
        if faults.is_empty() { Ok(written) } else { Err(faults) }
    }

    /// Writes the copy, builds the simulator there, and says where it is.
    ///
    /// # Errors
    /// A patch does not apply, a file cannot be written, or the build fails.
    pub(super) fn build(&self) -> Result<PathBuf, String> {
        let target = self.root.join("target").join("mutants");
        let copy = target.join("source");
        self.write(&copy)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let status = Command::new(cargo)
            .args(["build", "--quiet", "--locked", "--profile", "mutants", "-p", "sim", "--bin", "sim"])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(&copy)
            // They would replace what the configuration says.
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .status()
            .map_err(|error| format!("cargo could not be run: {error}"))?;
        if !status.success() {
            return Err(format!(
                "the sources with the bugs in them do not compile: {} has what the compiler speaks of",
                copy.display()
            ));
        }
        Ok(target.join("mutants").join("sim"))
    }

    /// Writes the copy, and builds the library's tests there. Where they are, and where they run.
    ///
    /// # Errors
    /// As of [`Self::build`].
    pub(super) fn build_tests(&self) -> Result<(PathBuf, PathBuf), String> {
        let target = self.root.join("target").join("mutants");
        let copy = target.join("source");
        self.write(&copy)?;
        let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
        let built = Command::new(cargo)
            .args([
                "test",
                "--quiet",
                "--locked",
                "--lib",
                "--no-run",
                "--message-format",
                "json-render-diagnostics",
            ])
            .arg("--target-dir")
            .arg(&target)
            .current_dir(&copy)
            .env_remove("RUSTFLAGS")
            .env_remove("CARGO_ENCODED_RUSTFLAGS")
            .stderr(std::process::Stdio::inherit())
            .output()
            .map_err(|error| format!("cargo could not be run: {error}"))?;
        let program = String::from_utf8_lossy(&built.stdout)
            .lines()
            .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
            .find_map(|line| line["executable"].as_str().map(PathBuf::from));
        match program.filter(|_| built.status.success()) {
            Some(program) => Ok((program, copy)),
            None => Err(format!("the tests with the bugs in them do not compile in {}", copy.display())),
        }
    }

    /// The names of all bugs, in the order of their numbers.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        self.patches.iter().map(|patch| patch.name.as_str())
    }

    /// A path in the repository.
    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// What lies at the top of the repository, and belongs to it.
    fn parts(&self) -> Result<Vec<String>, String> {
        let fault = |error: std::io::Error| format!("{}: {error}", self.root.display());
        let ignored = fs::read_to_string(self.root.join(".gitignore")).map_err(fault)?;
        let is_ignored = |name: &str| ignored.lines().any(|line| line.strip_prefix('/') == Some(name));
        let mut parts = Vec::new();
        for entry in fs::read_dir(&self.root).map_err(fault)? {
            let name = entry.map_err(fault)?.file_name().to_string_lossy().into_owned();
            if !name.starts_with('.') && !is_ignored(&name) && !LEFT_OUT.contains(&name.as_str()) {
                parts.push(name);
            }
        }
        Ok(parts)
    }

    /// Files that are as they should be are not written: then cargo need not build them anew.
    fn write(&self, copy: &Path) -> Result<(), String> {
        let mut files: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for part in self.parts()? {
            read_tree(&self.root, Path::new(&part), &mut files)?;
        }
        let combined = self.combined().map_err(|faults| faults.join("\n"))?;
        for (path, text) in self.sources.iter().chain(&combined) {
            files.insert(path.clone(), text.clone().into_bytes());
        }
        let library = files.entry("src/lib.rs".to_owned()).or_default();
        library.extend_from_slice(b"\npub mod mutants;\n");
        files.insert("src/mutants.rs".to_owned(), registry(&self.patches).into_bytes());
        files.insert(".cargo/config.toml".to_owned(), CONFIG.as_bytes().to_owned());
        for (path, content) in &files {
            write_if_different(&copy.join(path), content)?;
        }
        let mut there = BTreeMap::new();
        read_tree(copy, Path::new(""), &mut there)?;
        for path in there.keys().filter(|path| !files.contains_key(*path)) {
            let path = copy.join(path);
            fs::remove_file(&path).map_err(|error| format!("{}: {error}", path.display()))?;
        }
        Ok(())
    }
}

/// The sources with all bugs in them: those files that are different.
///
/// # Errors
/// Each place at which a patch does not apply, or changes what it may not.
pub(super) fn combined(patches: &[Patch], sources: &Sources) -> Result<Sources, Vec<String>> {
    let mut changes: BTreeMap<&str, Vec<Change<'_>>> = BTreeMap::new();
    let mut faults = Vec::new();
    for (index, patch) in patches.iter().enumerate() {
        let name = patch.name.as_str();
        for file in &patch.files {
            // The programs' own files cannot name the library's modules, and do nothing that could
            // be wrong.
            let source = sources.get(&file.path).filter(|_| !file.path.ends_with("src/main.rs"));
            let Some(source) = source else {
                faults.push(format!(
                    "sim/mutants/{name}.patch: {} is no source that a bug can be planted in",
                    file.path
                ));
                continue;
            };
            match file.place(source) {
                Ok(edits) => {
                    changes.entry(&file.path).or_default().push(Change { number: index + 1, name, edits });
                }
                Err(found) => {
                    faults.extend(found.iter().map(|fault| format!("sim/mutants/{name}.patch: {fault}")));
                }
            }
        }
    }
    let mut files = Sources::new();
    for (path, changes) in &changes {
        match combine(path, &sources[*path], changes) {
            Ok(text) => drop(files.insert((*path).to_owned(), text)),
            Err(found) => faults.extend(found),
        }
    }
    if faults.is_empty() { Ok(files) } else { Err(faults) }
}

/// The module of the copy that knows the bugs, and which one is planted.
fn registry(patches: &[Patch]) -> String {
    let bugs: String = patches
        .iter()
        .map(|patch| {
            let (name, what, only_madsim) = (&patch.name, patch.title(), patch.only_madsim());
            format!("    Mutant {{ name: {name:?}, what: {what:?}, only_madsim: {only_madsim} }},\n")
        })
        .collect();
    format!(
        "//! Made by `sim mutants`, from sim/mutants/*.patch.

use core::sync::atomic::{{AtomicUsize, Ordering}};

/// A bug that can be planted.
#[derive(Debug)]
pub struct Mutant {{
    /// The name of its patch.
    pub name: &'static str,
    /// What is wrong with it.
    pub what: &'static str,
    /// Whether the queue engine does not run the code that it changes.
    pub only_madsim: bool,
}}

/// All of them; the first has the number 1.
pub static ALL: &[Mutant] = &[
{bugs}];

static PLANTED: AtomicUsize = AtomicUsize::new(0);

/// Plants a bug in the whole process by its number; none, if it is 0.
pub fn plant(number: usize) {{
    PLANTED.store(number, Ordering::SeqCst);
}}

/// The number of the bug that is planted.
#[cfg(not(test))]
#[must_use]
pub fn planted() -> usize {{
    PLANTED.load(Ordering::Relaxed)
}}

/// The same in a process of tests.
#[cfg(test)]
pub fn planted() -> usize {{
    static NAMED: std::sync::OnceLock<usize> = std::sync::OnceLock::new();
    *NAMED.get_or_init(|| std::env::var({PLANTED:?}).ok().and_then(|word| word.parse().ok()).unwrap_or(0))
}}
"
    )
}

/// Reads the files below a folder, or a file, by their paths from the root.
fn read_tree(root: &Path, path: &Path, files: &mut BTreeMap<String, Vec<u8>>) -> Result<(), String> {
    let full = root.join(path);
    let fault = |error: std::io::Error| format!("{}: {error}", full.display());
    if !full.is_dir() {
        let name = path.to_string_lossy().replace('\\', "/");
        files.insert(name, fs::read(&full).map_err(fault)?);
        return Ok(());
    }
    for entry in fs::read_dir(&full).map_err(fault)? {
        read_tree(root, &path.join(entry.map_err(fault)?.file_name()), files)?;
    }
    Ok(())
}

/// Whether it was different.
fn write_if_different(path: &Path, content: &[u8]) -> Result<bool, String> {
    if fs::read(path).is_ok_and(|there| there == content) {
        return Ok(false);
    }
    let fault = |error| format!("{}: {error}", path.display());
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(fault)?;
    }
    fs::write(path, content).map_err(fault)?;
    Ok(true)
}
