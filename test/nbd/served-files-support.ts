/** Raw files that a store serves over both doors, for programs that bring a traffic of their own. All ends with the test. */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { afterEach } from 'vitest'
import { openStore, type ServedNbd, type Store, serveNbd } from '../../src/index.ts'
import { folder } from './disk-support.ts'

const ends: (() => Promise<void>)[] = []
afterEach(async () => {
  for (const end of ends.splice(0)) await end()
})

export interface ServedFiles {
  readonly store: Store
  readonly served: ServedNbd
  /** A file of the test's own. */
  readonly path: (name: string) => string
  /** Of a disk, over the Unix socket (0) or TCP (1). */
  readonly uri: (disk: string, door?: 0 | 1) => string
  readonly file: (disk: string) => string
  readonly bytes: (disk: string) => Buffer
}

/** Disks of `size` bytes, holes throughout. */
export async function servedFiles(
  size: number,
  names: readonly string[],
  readOnly: readonly string[] = [],
): Promise<ServedFiles> {
  const { path, remove } = folder()
  const file = (disk: string) => path(`${encodeURIComponent(disk)}.raw`)
  for (const name of names) {
    writeFileSync(file(name), '')
    truncateSync(file(name), size)
  }
  const store = await openStore(path('store'))
  const disks = names.map((disk) => ({ disk, file: file(disk), readOnly: readOnly.includes(disk) }))
  const served = await serveNbd(store, { disks, socket: path('s'), tcp: { port: 0 } })
  ends.push(async () => {
    await served.close()
    await store.close()
    remove()
  })
  const uri = (disk: string, door: 0 | 1 = 0) => served.disks.find((one) => one.disk === disk)!.uris[door]!
  return { store, served, path, uri, file, bytes: (disk) => readFileSync(file(disk)) }
}
