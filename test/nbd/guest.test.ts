/**
 * A real file system on one of our disks: a Linux guest makes an ext4 and uses it, and we mark moments in between. What differs
 * from a copy that was taken at a moment must be in the map since it (R31), and the map must be the one that the guest's own QEMU
 * kept on its side of the wire from that moment on, bit for bit (R5).
 *
 * A copy is taken while the guest is paused: QEMU then waits for the disk's requests that are under way and begins none. The
 * guest's page cache and journal are whatever they are then.
 */
import { randomFillSync } from 'node:crypto'
import { copyFileSync, truncateSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { openStore, type ServedNbd, type Store, serveNbd, verifyStore } from '../../src/index.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { type Folder, folder } from './disk-support.ts'
import { Files, SEED } from './files-support.ts'
import { differing, expectFiles } from './guest-files-support.ts'
import { Guest, initramfs } from './guest-support.ts'
import { dirtyRanges, granulesOf } from './programs-support.ts'

const MiB = 2 ** 20
const SIZE = 256 * MiB
const G = 65_536
/** Half a minute each on two idle cores; a busy machine is no failure. */
const LONG = runs(900_000, 3_600_000)
const MOUNT = 'mount -t ext4 -o discard /dev/vda /mnt'

/** A served disk, what the guest's files hold, and the moments that were marked. */
interface Bench {
  readonly place: Folder
  readonly store: Store
  readonly served: ServedNbd
  readonly uri: string
  readonly archive: Buffer
  readonly files: Files
  readonly marks: { readonly name: string; readonly time: string; readonly copy: string }[]
}

const benches: Bench[] = []
const guests: Guest[] = []
afterEach(async () => {
  for (const guest of guests.splice(0)) await guest.kill()
  for (const { place, served, store } of benches.splice(0)) {
    await served.close()
    await store.close()
    place.remove()
  }
})

async function bench(random: () => number): Promise<Bench> {
  const place = folder()
  const file = place.path('vda.raw')
  writeFileSync(file, '')
  truncateSync(file, SIZE)
  const store = await openStore(place.path('store'))
  const served = await serveNbd(store, { disks: [{ disk: 'vda', file }], socket: place.path('s') })
  const bytes = randomFillSync(Buffer.alloc(2 * MiB))
  const made: Bench = {
    place,
    store,
    served,
    uri: served.disks[0]!.uris[0]!,
    archive: initramfs({ [SEED]: bytes }),
    files: new Files(random, bytes, '/mnt'),
    marks: [],
  }
  benches.push(made)
  return made
}

async function boot({ uri, archive }: Bench): Promise<Guest> {
  const guest = await Guest.boot(`file=${uri}`, archive)
  guests.push(guest)
  return guest
}

/** Marks a moment in which no write of the guest is under way: here, in the guest's QEMU, and by a copy of the file. */
async function mark({ place, store, marks }: Bench, guest: Guest): Promise<void> {
  const name = `mark-${marks.length}`
  await guest.pause()
  await store.createCheckpoint(name)
  await guest.track(name, G)
  copyFileSync(place.path('vda.raw'), place.path(name))
  marks.push({ name, time: new Date().toISOString(), copy: place.path(name) })
  await guest.resume()
}

/** `steps` things happen to the files, and now and then all of them are synced or free space is discarded. */
async function use({ files }: Bench, guest: Guest, random: () => number, steps: number): Promise<void> {
  for (let step = 0; step < steps; step++) {
    await guest.run(files.step())
    // Of a part only: free space is most of the disk, and a map that is all dirty would prove nothing.
    const part = `-o ${MiB * Math.floor(random() * 240)} -l ${16 * MiB}`
    if (random() < 0.1) await guest.run(random() < 0.7 ? 'sync' : `fstrim ${part} /mnt`)
  }
}

/** Every map since every moment that was marked misses nothing of what differs from its copy. */
async function expectNothingMissed({ place, uri, marks }: Bench): Promise<void> {
  for (const { name, time, copy } of marks) {
    const differ = differing(copy, place.path('vda.raw'), G)
    for (const map of [`@checkpoint=${name}`, `@time=${time}`]) {
      const dirty = granulesOf(await dirtyRanges(uri, map), G)
      const missing = differ.filter((granule) => !dirty.has(granule))
      expect([map, missing]).toEqual([map, []])
      const ratio = (dirty.size / Math.max(1, differ.length)).toFixed(2)
      process.stderr.write(
        `proof: guest ${map}: ${differ.length} granules differ, ${dirty.size} of ${SIZE / G} are in the map, ${ratio} times as many\n`,
      )
    }
    expect(differ.length, name).toBeGreaterThan(0)
  }
}

/** The file system is sound, and these files (all there are, unless told) hold what was written into them. */
async function expectSound({ place, files }: Bench, kept?: ReadonlyMap<string, Buffer>): Promise<void> {
  await expectFiles(place.path('vda.raw'), place.path('files'), kept ?? files.content, kept === undefined)
}

describeWithPeers(
  ['qemu-system-x86_64', 'guest/vmlinuz', 'guest/busybox', 'mke2fs', 'e2fsck', 'debugfs', 'nbdinfo'],
  'a guest with ext4',
  () => {
    test("R1, R5, R8, R31: since each moment the map holds all that differs from that moment's copy, and is bit for bit the guest's QEMU's", {
      timeout: LONG,
    }, async () => {
      const used = seed()
      const [phases, steps] = [runs(3, 8), runs(25, 60)]
      announce('a guest with ext4, moments marked', phases, used)
      const random = prng(used)
      const all = await bench(random)
      const guest = await boot(all)
      await mark(all, guest)
      await guest.run('/host/mke2fs -q -t ext4 /dev/vda')
      await guest.run(MOUNT)
      for (let phase = 0; phase < phases; phase++) {
        await use(all, guest, random, steps)
        // Where nothing was synced the guest's own write-back goes on behind the mark.
        if (phase % 2 === 0) await guest.run('sync')
        await mark(all, guest)
      }
      await use(all, guest, random, steps)
      await guest.run('sync; umount /mnt')
      await guest.pause()
      for (const { name } of all.marks) {
        const { digest } = await all.store.disk('vda').changed({ since: { checkpoint: name } })
        expect([name, digest]).toEqual([name, await guest.digest(name)])
      }
      await guest.resume()
      await guest.powerOff()
      await expectNothingMissed(all)
      await expectSound(all)
      await all.served.close()
      await all.store.close()
      expect((await verifyStore(all.place.path('store'))).findings).toEqual([])
    })

    test('R8, R31: a guest that loses its power between two syncs has changed nothing outside the map, and what it synced is there', {
      timeout: LONG,
    }, async () => {
      const used = seed()
      announce('a guest that loses its power', 1, used)
      const random = prng(used)
      const all = await bench(random)
      const first = await boot(all)
      await first.run(`/host/mke2fs -q -t ext4 /dev/vda; ${MOUNT}`)
      await use(all, first, random, 20)
      await first.run('sync')
      const kept = all.files.keep()
      await mark(all, first)
      await use(all, first, random, runs(10, 40))
      const before = all.served.counts().writtenBytes
      const last = first.run(`while :; do cat /${SEED} >/mnt/unfinished; sync; done`)
      // The end comes while it writes.
      const ended = expect(last).rejects.toThrow('the guest ended')
      while (all.served.counts().writtenBytes < before + 5 * MiB) await sleep(10)
      await first.kill()
      await ended

      const second = await boot(all)
      await second.run(`${MOUNT}; umount /mnt`)
      await second.powerOff()
      await expectNothingMissed(all)
      expect(kept.size).toBeGreaterThan(0)
      await expectSound(all, kept)
    })
  },
)
