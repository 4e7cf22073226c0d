/** Imports a disk and says when it begins to record; its parent kills it about then. argv: store, file. */
import { importDisk } from '../../src/audit/disk-import.ts'
import { openStore } from '../../src/store/open.ts'

const [folder, file] = process.argv.slice(2)
const store = await openStore(folder!, { create: false })
let said = false
await importDisk(store, file!, {
  onProgress: () => {
    if (!said) process.stdout.write('recording')
    said = true
  },
})
setTimeout(() => undefined, 60_000)
