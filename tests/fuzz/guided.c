/* What libFuzzer drives: an interpreter with the instrumented modules in it, and one of the targets
   of tests/fuzz/targets.py, named by FUZZ_TARGET. An exception is a finding, as a crash is.

   The modules are compiled with -fsanitize=fuzzer-no-link: they find libFuzzer's counters, and the
   sanitizer, in this program, which therefore exports all of its symbols. */
#define PY_SSIZE_T_CLEAN
#include <Python.h>
#include <stdint.h>
#include <stdlib.h>

static PyObject *target;

static const char *const START =
    "import os, runpy, sys\n"
    "sys.argv = ['asan_run.py', 'tests.fuzz.targets']\n"
    "runpy.run_path(os.environ['FUZZ_RUN'])\n"
    "from tests.fuzz.targets import TARGETS\n"
    "target = TARGETS[os.environ['FUZZ_TARGET']]\n";

int LLVMFuzzerInitialize(int *argc, char ***argv) {
    PyConfig config;
    PyObject *main_module;
    (void)argc;
    (void)argv;
    PyConfig_InitPythonConfig(&config);
    config.install_signal_handlers = 0; /* Ctrl-C and the time limit are libFuzzer's */
    config.parse_argv = 0;
    if (PyStatus_Exception(PyConfig_SetBytesString(&config, &config.program_name,
                                                   getenv("FUZZ_PYTHON")))
        || PyStatus_Exception(Py_InitializeFromConfig(&config)))
        abort();
    PyConfig_Clear(&config);
    if (PyRun_SimpleString(START) != 0)
        exit(1);
    main_module = PyImport_AddModule("__main__");
    target = main_module ? PyObject_GetAttrString(main_module, "target") : NULL;
    if (target == NULL)
        exit(1);
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size) {
    PyObject *result = PyObject_CallFunction(target, "y#", (const char *)data, (Py_ssize_t)size);
    if (result == NULL) {
        PyErr_Print();
        abort();
    }
    Py_DECREF(result);
    return 0;
}
