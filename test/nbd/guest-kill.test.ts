/**
 * The server is killed under a guest that writes, and served again: the guest's QEMU waits and asks again, the guest sees nothing of
 * it, and nothing is missing in any map. Every kill is a SIGKILL of `slicelog serve`, in a process of its own, at a random moment.
 */
import { randomFillSync } from 'node:crypto'
import { copyFileSync, truncateSync, writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { afterEach, expect, test } from 'vitest'
import { openStore, verifyStore } from '../../src/index.ts'
import { captured, slicelog } from '../cli/support.ts'
import { cli } from '../owner/support.ts'
import { endChildren } from '../support/children.ts'
import { describeWithPeers } from '../support/peers.ts'
import { announce, prng, runs, seed } from '../support/property.ts'
import { folder } from './disk-support.ts'
import { Files, SEED } from './files-support.ts'
import { differing, expectFiles } from './guest-files-support.ts'
import { Guest, initramfs } from './guest-support.ts'
import { dirtyRanges, granulesOf } from './programs-support.ts'

const MiB = 2 ** 20
const SIZE = 256 * MiB
const G = 65_536

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

describeWithPeers(
  ['qemu-system-x86_64', 'guest/vmlinuz', 'guest/busybox', 'mke2fs', 'e2fsck', 'debugfs', 'nbdinfo'],
  'a guest whose disk is served by a process that dies',
  () => {
    test.each(['process', 'power'] as const)(
      'R30, R31, R32: at level %s the guest goes on, its files are whole, and the map is still that of its own QEMU',
      {
        timeout: runs(900_000, 3_600_000),
      },
      async (durability) => {
        const [kills, used] = [runs(2, 15), seed()]
        announce(`a guest whose server is killed, ${durability}`, kills, used)
        const random = prng(used)
        const place = folder()
        ends.push(place.remove)
        const [store, raw, socket] = [place.path('store'), place.path('vda.raw'), place.path('s')]
        await (await openStore(store)).close()
        writeFileSync(raw, '')
        truncateSync(raw, SIZE)

        const serve = async () => {
          const words = ['--disk', `vda=${raw}`, '--nbd', `unix:${socket}`, '--durability', durability]
          const server = cli(['--store', store, 'serve', '--json', ...words])
          while (!server.text.out.includes('\n')) {
            if (server.child.exitCode !== null) throw new Error(`it ended: ${(await server.ended).err}`)
            await sleep(10)
          }
          return server
        }
        const ask = async (...words: string[]): Promise<Record<string, unknown>> => {
          const ran = await slicelog(['--store', store, ...words, '--json'], captured())
          expect(ran.code, ran.err).toBe(0)
          return ran.json<Record<string, unknown>>()
        }

        ends.push(endChildren)
        let server = await serve()
        const bytes = randomFillSync(Buffer.alloc(2 * MiB))
        const source = `file.driver=nbd,file.server.type=unix,file.server.path=${socket},file.export=vda,file.reconnect-delay=600`
        const guest = await Guest.boot(source, initramfs({ [SEED]: bytes }))
        ends.push(() => guest.kill())
        await guest.run('/host/mke2fs -q -t ext4 /dev/vda; mount -t ext4 -o discard /dev/vda /mnt; sync')
        await guest.pause()
        await ask('checkpoint', 'create', 'mark')
        await guest.track('mark', G)
        copyFileSync(raw, place.path('mark'))
        await guest.resume()

        const files = new Files(random, bytes, '/mnt')
        for (let kill = 0; kill < kills; kill++) {
          const work = guest.run(Array.from({ length: 12 }, () => `${files.step()} && sync`).join(' && '))
          await sleep(random() * 700)
          server.child.kill('SIGKILL')
          await server.ended
          server = await serve()
          await work
        }
        await guest.run('sync; umount /mnt')
        await guest.pause()
        const changed = await ask('changed', 'vda', '--since', 'checkpoint:mark')
        expect(changed).toMatchObject({ digest: await guest.digest('mark'), complete: true, lost: [] })
        await guest.resume()
        await guest.powerOff()

        const dirty = granulesOf(await dirtyRanges(`nbd+unix:///vda?socket=${socket}`, '@checkpoint=mark'), G)
        const differ = differing(place.path('mark'), raw, G)
        expect(differ.filter((granule) => !dirty.has(granule))).toEqual([])
        expect(differ.length).toBeGreaterThan(0)
        process.stderr.write(
          `proof: ${kills} kills: ${differ.length} granules differ, ${dirty.size} are in the map\n`,
        )
        server.child.kill('SIGTERM')
        expect((await server.ended).code).toBe(0)
        await expectFiles(raw, place.path('files'), files.content, true)
        expect((await verifyStore(store)).findings).toEqual([])
      },
    )
  },
)
