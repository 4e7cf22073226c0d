/** One disk twice: served by us, and by a real QEMU beside us; the same requests and the same bitmaps go to both. */
import { truncateSync, writeFileSync } from 'node:fs'
import { onTestFinished } from 'vitest'
import { type Disk, openStore, serveNbd } from '../../src/index.ts'
import { NODE, QemuDaemon } from '../support/qemu/daemon.ts'
import { Nbd } from '../support/qemu/nbd.ts'
import { folder } from './disk-support.ts'

export interface Request {
  readonly op: 'write' | 'zero' | 'trim' | 'flush'
  readonly offset: number
  readonly length: number
  readonly flags: number
}

export interface Sides {
  readonly qemu: QemuDaemon
  /** A client of ours; `qemu.nbd` is the one of theirs. */
  readonly client: Nbd
  readonly disk: Disk
  /** Where we serve the disk as `vda`. */
  readonly socket: string
  /** From this moment on a bitmap in both, and a checkpoint `mark-NAME` of ours. */
  readonly addBitmap: (bitmap: { readonly name: string; readonly granularity: number }) => Promise<void>
  readonly sendToBoth: (request: Request) => Promise<void>
}

/** Holes of `size` bytes on both sides. All ends with the work. */
export async function besideQemu<T>(size: number, work: (sides: Sides) => Promise<T>): Promise<T> {
  const { path, remove } = folder()
  onTestFinished(remove)
  const qemu = await QemuDaemon.start('raw', size)
  const store = await openStore(path('store'))
  const [file, socket] = [path('vda.raw'), path('s')]
  writeFileSync(file, '')
  truncateSync(file, size)
  const served = await serveNbd(store, { disks: [{ disk: 'vda', file }], socket })
  const client = await Nbd.connect(socket, 'vda')
  const disk = store.disk('vda')
  try {
    return await work({
      qemu,
      client,
      disk,
      socket,
      addBitmap: async ({ name, granularity }) => {
        await qemu.qmp.execute('block-dirty-bitmap-add', { node: NODE, name, granularity })
        await store.createCheckpoint(`mark-${name}`)
        await disk.addBitmap(name, { granularity })
      },
      sendToBoth: async (request) => {
        await Promise.all([send(qemu.nbd, request), send(client, request)])
      },
    })
  } finally {
    await client.disconnect()
    await served.close()
    await store.close()
    await qemu.stop()
  }
}

export async function send(nbd: Nbd, { op, offset, length, flags }: Request): Promise<void> {
  switch (op) {
    case 'write':
      return await nbd.write(offset, length, flags)
    case 'zero':
      return await nbd.writeZeroes(offset, length, flags)
    case 'trim':
      return await nbd.trim(offset, length, flags)
    case 'flush':
      return await nbd.flush()
    default:
      return op satisfies never
  }
}
