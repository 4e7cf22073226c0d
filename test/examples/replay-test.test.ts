/** The example of a replay-driven test is a test, so it runs here as it is. */
import '../../examples/replay-test/eightfold.test.ts'
