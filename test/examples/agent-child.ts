/**
 * A process that a test starts: an agent whose third copy ends in SIGKILL, in the middle of a backup. Arguments: the
 * store's folder and a folder for snapshots, which outlive the process as a real snapshot would.
 */

import { BackupAgent } from '../../examples/agent.ts'
import { openStore } from '../../src/index.ts'
import { agentOptions, fileMover } from './agent-support.ts'

const [folder, snapshots] = process.argv.slice(2) as [string, string]
const store = await openStore(folder)
let copies = 0
const options = agentOptions({
  mover: fileMover(snapshots, async () => {
    if (++copies === 3) process.kill(process.pid, 'SIGKILL')
  }),
})
const agent = await BackupAgent.start(store, options)
for (let round = 0; round < 3; round++) {
  await store.disk(options.disk).recordWrites([{ offset: round * 65_536, length: 4096 }])
  await agent.tick()
}
