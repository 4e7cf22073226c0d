/** Scripts in nbdsh (libnbd, in Python) against our server: they keep the model, and we look at what the store has of it. */
import { randomFillSync } from 'node:crypto'
import { writeFileSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { expect, test } from 'vitest'
import { describeWithPeers } from '../support/peers.ts'
import { announce, runs, seed } from '../support/property.ts'
import { Nbd, type NbdRange } from '../support/qemu/nbd.ts'
import { KiB } from './disk-support.ts'
import { granulesOf, run } from './programs-support.ts'
import { servedFiles } from './served-files-support.ts'

const MiB = 1024 * KiB
/** No multiple of a granule, nor of a sector. */
const ODD = 9 * MiB + 517
const DIRTY = 'qemu:dirty-bitmap:'

/** Runs a script of the folder `nbdsh`, and gives what it printed in the end. */
async function nbdsh<T>(script: string, args: object): Promise<T> {
  // Twice: a string of JSON is one of Python, too.
  const given = `import json; arguments = json.loads(${JSON.stringify(JSON.stringify(args))})`
  const path = `${import.meta.dirname}/nbdsh/${script}`
  const text = `exec(compile(open("${path}").read(), "${script}", "exec"))`
  return JSON.parse(await run('nbdsh', '-n', '-c', given, '-c', text)) as T
}

describeWithPeers(['nbdsh'], 'nbdsh', () => {
  test.each(['unix', 'tcp'] as const)(
    "R1, R2, R4, R31: many requests in flight over %s, answered in any order: the bytes and four dirty maps are the model's",
    async (door) => {
      const [used, requests] = [seed(), runs(1500, 40_000)]
      announce(`nbdsh over ${door}`, requests, used)
      const { store, served, uri } = await servedFiles(ODD, ['vda'])
      const disk = store.disk('vda')
      const granularities = { b512: 512, b4k: 4 * KiB, b64k: 64 * KiB, b1m: MiB }
      for (const [name, granularity] of Object.entries(granularities))
        await disk.addBitmap(name, { granularity })
      await store.createCheckpoint('start')
      const contexts = Object.entries(granularities).map(([name, granularity]) => [DIRTY + name, granularity])
      const said = await nbdsh<{ late: number; changes: number; dirty: Record<string, number> }>(
        'traffic.py',
        {
          uri: uri('vda', door === 'unix' ? 0 : 1),
          seed: used,
          requests,
          depth: 64,
          ranges: 40,
          granularities: { ...Object.fromEntries(contexts), [`${DIRTY}@checkpoint=start`]: 64 * KiB },
        },
      )
      expect(said.late, 'answers that came before that of an older request').toBeGreaterThan(0)
      for (const [name, granularity] of Object.entries(granularities))
        expect([name, (await disk.bitmap(name).bits()).count]).toEqual([
          name,
          said.dirty[DIRTY + name]! * granularity,
        ])
      expect(served.counts()).toMatchObject({ errors: 0, connected: 0 })
    },
  )

  test('R1, R21: what must not be asked is refused by its right name, records nothing and moves nothing', async () => {
    const size = 40 * MiB + 1
    const { store, uri, file, bytes } = await servedFiles(size, ['vda', 'vdb'], ['vdb'])
    const before = randomFillSync(Buffer.alloc(size))
    writeFileSync(file('vda'), before)
    const head = store.head
    const { refused } = await nbdsh<{ refused: number }>('refusals.py', {
      writable: uri('vda'),
      readonly: uri('vdb'),
    })
    expect(refused).toBeGreaterThan(150)
    expect(store.head).toEqual(head)
    expect(bytes('vda').equals(before)).toBe(true)
  })

  test('R8, R11, R23: several maps in one connection, each of its own stretch and granularity, told for odd ranges', async () => {
    const { store, uri, served } = await servedFiles(ODD, ['vda', 'vdb'])
    const disk = store.disk('vda')
    await disk.addBitmap('a', { granularity: 64 * KiB, retention: 5 })
    await disk.addBitmap('b', { granularity: 4 * KiB })
    const client = await Nbd.connect(served.socket!, 'vda')
    const written: NbdRange[][] = [
      [
        [0, 1],
        [5 * MiB - 1, 2],
        [ODD - 1, 1],
      ],
      [
        [70_000, 9000],
        [MiB, 4 * MiB],
        [ODD - 517, 517],
      ],
      [
        [4096, 4096],
        [3 * MiB + 1, 65_536],
      ],
    ]
    const write = async (which: number) => {
      for (const [offset, length] of written[which]!) await client.write(offset, length)
    }
    await write(0)
    const { slice } = await disk.bitmap('a').bank()
    await write(1)
    await store.createCheckpoint('middle')
    const position = store.head.position
    const time = new Date(Math.max(Date.now(), store.head.time! + 1))
    while (Date.now() < time.getTime()) await sleep(1)
    await write(2)
    await client.disconnect()

    const since = (first: number, granularity: number) => mapOf(written.slice(first).flat(), granularity)
    const maps = {
      a: since(1, 64 * KiB),
      [`a@since=${slice}`]: since(0, 64 * KiB),
      [`a@between=${slice}..${slice + 1}`]: mapOf(written[0]!, 64 * KiB),
      b: since(0, 4 * KiB),
      'b@checkpoint=middle': since(2, 4 * KiB),
      '@checkpoint=middle': since(2, 64 * KiB),
      [`@position=${position}`]: since(2, 64 * KiB),
      [`@time=${time.toISOString()}`]: since(2, 64 * KiB),
    }
    const listed = ['a', 'b', `a@since=${slice}`, '@checkpoint=middle'].map((name) => DIRTY + name)
    const said = await nbdsh<{ maps: number }>('contexts.py', {
      uri: uri('vda'),
      size: ODD,
      exports: ['vda', 'vdb'],
      maps,
      listed,
    })
    expect(said.maps).toBe(Object.keys(maps).length)
  })
})

/** The whole map of these ranges as runs, the dirty ones with flag 1. */
function mapOf(ranges: readonly NbdRange[], granularity: number): [number, number, number][] {
  const granules = granulesOf(ranges, granularity)
  const found: [number, number, number][] = []
  for (let at = 0; at < ODD; at += granularity) {
    const length = Math.min(granularity, ODD - at)
    const flags = granules.has(at / granularity) ? 1 : 0
    const last = found.at(-1)
    if (last?.[2] === flags) last[1] += length
    else found.push([at, length, flags])
  }
  return found
}
