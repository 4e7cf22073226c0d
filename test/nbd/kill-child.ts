/** Serves a file to itself and writes to it at random, without a pause, until it is killed. Says `ready` once it began. */
import { writeSync } from 'node:fs'
import { ServedDisk } from '../../src/nbd/served-disk.ts'
import { openStore } from '../../src/store/open.ts'
import { prng } from '../support/property.ts'

async function main(folder: string, file: string, seed: number): Promise<void> {
  const random = prng(seed)
  const below = (n: number) => Math.floor(random() * n)
  const store = await openStore(folder, { snapshotEvery: 5000 })
  const disk = await ServedDisk.open(store, { disk: 'vda', file })
  writeSync(1, 'ready\n')
  const worker = async () => {
    for (;;) {
      const offset = below(disk.size)
      const length = Math.min(disk.size - offset, 1 + below(8192))
      const kind = random()
      const fua = random() < 0.02
      if (kind < 0.7) await disk.write(offset, Buffer.alloc(length, 1 + below(255)), fua)
      else if (kind < 0.9) await disk.writeZeroes(offset, length, { fua, noHole: random() < 0.5 })
      else if (kind < 0.98) await disk.trim(offset, length, fua)
      else await store.snapshot()
    }
  }
  await Promise.all(Array.from({ length: 16 }, worker))
}

const [folder, file, seed] = process.argv.slice(2)
void main(folder!, file!, Number(seed))
