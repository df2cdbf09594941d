"""A mutation run: single changes to the code, and whether the tests of the module notice.

    pip install -e '.[mutation]'
    python -m tests.mutation --seed=0 --count=150 | tee run.txt
    python -m tests.mutation --again=run.txt

The changes are those of cosmic-ray; which of them, the seed says. Tests run in copies of
the repository, never in the work tree. A change that is not noticed is printed; the run
fails if more than one in ten is not; `--again` tries those alone once more. Changes that no
test can notice are listed in `equivalent.py` with the reason.
"""
