/** Repairs a store and ends itself, as a kill would, before step number N of the repair. argv: folder, N. */
import { repairStore } from '../../src/audit/repair.ts'

const [folder, at] = process.argv.slice(2)
let left = Number(at)
await repairStore(folder!, {
  onStep: (name) => {
    if (left-- > 0) return
    process.stdout.write(name)
    process.kill(process.pid, 'SIGKILL')
  },
})
process.stdout.write('done')
