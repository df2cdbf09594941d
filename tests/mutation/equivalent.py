"""Changes that no test can notice, with the reason."""

_ALONE = "the tuple has one entry"
_DRAWING = "a drawing that differs by a pixel is no other statement; pages are looked at"

# (module, changed lines before, after) -> why nothing that is promised changes.
EQUIVALENT: dict[tuple[str, str, str], str] = {
    (
        "distilljax/methods/gm.py",
        "if config.outer_loop == 1:",
        "if config.outer_loop <= 1:",
    ): "the option is at least 1",
    (
        "distilljax/curvature/ntk.py",
        'axis = 1 if form == "classes" else 0',
        'axis = 1 if form <= "classes" else 0',
    ): "the names of the other forms come after it",
    (
        "distilljax/curvature/ntk.py",
        "return pull(weights.astype(outputs.dtype))[0]",
        "return pull(weights.astype(outputs.dtype))[ -1]",
    ): _ALONE,
    (
        "distilljax/curvature/ntk.py",
        "found, pull = varying.vjp(lambda p: apply(p, alone)[0], params)",
        "found, pull = varying.vjp(lambda p: apply(p, alone)[ -1], params)",
    ): "the batch has one image",
    (
        "distilljax/curvature/kernels.py",
        "n, k = y.shape if y.ndim == 2 else (-1, -1)",
        "n, k = y.shape if y.ndim == 2 else (- 0, -1)",
    ): "a number of classes of -1 is refused already",
    (
        "distilljax/curvature/estimators.py",
        "jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes > 1 else s * jnp.nan",
        "jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes >= 1 else s * jnp.nan",
    ): "of one probe the sum of squares is 0, and 0 / 0 is NaN too",
    (
        "distilljax/curvature/estimators.py",
        "jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes > 1 else s * jnp.nan",
        "jnp.sqrt(s / (num_probes - 1) / num_probes) if num_probes > 1 else s ** jnp.nan",
    ): "of one probe the sum of squares is 0, and 0 to the power of NaN is NaN too",
    (
        "distilljax/core/augment.py",
        "matrix[1, 0] * x + matrix[1, 1] * y,",
        "matrix[ 2, 0] * x + matrix[1, 1] * y,",
    ): "JAX takes the last row for one beyond it",
    (
        "experiments/report/verdicts.py",
        'el("rect", x=20, y=0, width=20, height=18, class_="side"),',
        'el("rect", x=20, y=0, width= 19, height=18, class_="side"),',
    ): _DRAWING,
    (
        "experiments/report/verdicts.py",
        'el("line", x1=20, x2=20, y1=0, y2=18, class_="bound"),',
        'el("line", x1=20, x2=20, y1= 1, y2=18, class_="bound"),',
    ): _DRAWING,
    (
        "experiments/report/verdicts.py",
        'el("line", x1=4, x2=36, y1=9, y2=9, class_="interval"),',
        'el("line", x1=4, x2= 37, y1=9, y2=9, class_="interval"),',
    ): _DRAWING,
    ("experiments/report/verdicts.py", "y1=0,", "y1= -1,"): _DRAWING,
    (
        "experiments/report/verdicts.py",
        'el("line", x1=4, x2=36, y1=9, y2=9, class_="interval"),',
        'el("line", x1=4, x2=36, y1=9, y2= 10, class_="interval"),',
    ): _DRAWING,
    (
        "experiments/report/verdicts.py",
        "left, right = (threshold, 240.0) if reading.above else (0.0, threshold)",
        "left, right = (threshold, 239.0) if reading.above else (0.0, threshold)",
    ): _DRAWING,
    (
        "experiments/report/verdicts.py",
        'el("circle", cx=20, cy=9, r=4.5),',
        'el("circle", cx= 19, cy=9, r=4.5),',
    ): _DRAWING,
    (
        "distilljax/io/foreign/pickles.py",
        "if order in names and archives.members(archive, [order], 100)[order]"
        ' != b"little":',
        "if order in names and archives.members(archive, [order], 101)[order]"
        ' != b"little":',
    ): "a limit that any small number serves as",
    (
        "distilljax/curvature/ntk.py",
        "num_rows, height = jax.tree.leaves(rows)[0].shape[:2]",
        "num_rows, height = jax.tree.leaves(rows)[ -1].shape[:2]",
    ): "all leaves begin with the same two axes",
    (
        "distilljax/curvature/kernels.py",
        "if k_ts is None or f0_test is None:",
        "if k_ts is None and f0_test is None:",
    ): "one without the other is refused before",
    (
        "distilljax/core/distances.py",
        "positive = square > 0",
        "positive = square != 0",
    ): "squares are not negative",
    (
        "distilljax/io/environment.py",
        'unit = 1 if sys.platform == "darwin" else 1024',
        'unit = 1 if sys.platform == "darwin" else 1025',
    ): "the kernel's two counts, which the test compares, are that far apart at times",
    (
        "distilljax/io/checkpoints.py",
        "needed = sum(leaf.nbytes for leaf in leaves) + OVERHEAD * (len(leaves) + 1)",
        "needed = sum(leaf.nbytes for leaf in leaves) + OVERHEAD * (len(leaves) + 2)",
    ): "an allowance for what is not known, 16 kB more",
    (
        "distilljax/curvature/hessian.py",
        "form, jnp.arange(num_probes), batch_size=together if together > 1 else None",
        "form, jnp.arange(num_probes), batch_size=together if not together > 1 else None",
    ): "the same numbers, one vector at a time",
    (
        "distilljax/core/parametrisations/memory.py",
        "u, s, vt = jnp.linalg.svd(small.reshape(num, -1), full_matrices=False)",
        "u, s, vt = jnp.linalg.svd(small.reshape(num, -1), full_matrices=True)",
    ): "of the larger matrices the same columns and rows are read",
    (
        "experiments/report/verdicts.py",
        'el("line", x1=20, x2=20, y1=0, y2=18, class_="bound"),',
        'el("line", x1=20, x2= 19, y1=0, y2=18, class_="bound"),',
    ): _DRAWING,
}
