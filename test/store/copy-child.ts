/** Copies a store and ends itself in the middle, as a kill would. argv: store, target. */
import { openStore } from '../../src/store/open.ts'

const [folder, to] = process.argv.slice(2)
const store = await openStore(folder!, { create: false })
await store.copyTo(to!, { onProgress: () => process.kill(process.pid, 'SIGKILL') })
