/**
 * Power cuts: the files of a real serving process as they may be found when the power went, reopened on the next boot. What
 * they say changed is a superset of what did (R30, R31, R32, R35).
 */
import { join } from 'node:path'
import { afterAll, expect, test } from 'vitest'
import { unsynced } from '../support/file-history.ts'
import { describeWithPeers } from '../support/peers.ts'
import { prng, proof } from '../support/property.ts'
import { type Cut, checkCut, MODELS, type Model, newTally, type Tally } from './power-cut-check.ts'
import { type Recording, record, removeRecordings } from './power-cut-recording.ts'

afterAll(removeRecordings)
const LONG = { timeout: 3_600_000 }
/** More than fit into one write-ahead file of LevelDB. */
const WAL_WRITES = 800_000
const NAMES = Object.keys(MODELS) as Model[]

/** At the edges of syncs and of the disk's writes, just before or after, and anywhere else. */
function cutOf({ times, borders }: Recording, random: () => number): Cut {
  const below = (n: number): number => Math.floor(random() * n)
  const border = borders[below(borders.length)]!
  const line =
    random() < 0.75 ? border - below(2) : Math.floor(borders[0]! + random() * (times.length - borders[0]!))
  return { line: Math.max(0, line), model: NAMES[below(NAMES.length)]! }
}

function report(name: string, { cuts, answers, wholeDisk, differing, told, ...rest }: Tally): void {
  process.stderr.write(
    `proof: ${name}: ${cuts} cuts, ${answers} answers (${wholeDisk} of the whole disk), ${differing} granules that differed in ` +
      `${told} told (${(told / differing).toFixed(2)}), ${rest.inFlight} in flight left out, ${rest.recovered} torn ends\n`,
  )
}

async function cuts(recording: Recording, count: number, random: () => number, tally: Tally): Promise<void> {
  for (let i = 0; i < count; i++) await checkCut(recording, cutOf(recording, random), random, tally)
}

/** What the check finds at fault in so many cuts of one model. */
async function faults(
  recording: Recording,
  model: Model,
  count: number,
  random: () => number,
): Promise<string[]> {
  const found: string[] = []
  for (let i = 0; i < count; i++)
    await checkCut(recording, { ...cutOf(recording, random), model }, random, newTally()).catch(
      (error: Error) => found.push(error.message),
    )
  return found
}

describeWithPeers(['strace'], 'a power cut', () => {
  test(
    'R30, R31, R32: at level power whatever differs from an earlier point is in the map since then, at every cut and by every model',
    LONG,
    async () => {
      const { numRuns, seed } = proof('power cuts of a serving process', 60, 600)
      const random = prng(seed)
      const tally = newTally()
      const recordings = numRuns > 60 ? 12 : 3
      for (let i = 0; i < recordings; i++) {
        const recording = await record({
          seed: Math.floor(random() * 2 ** 31),
          requests: 200,
          durability: 'power',
          depth: [8, 1, 32][i % 3]!,
          imported: i % 3 === 2 ? WAL_WRITES : 0,
        })
        // One when it opens the log, and a second when the first is full.
        if (i % 3 === 2) expect(recording.walFiles).toBeGreaterThanOrEqual(2)
        await cuts(recording, numRuns / recordings, random, tally)
      }
      report('power cuts of a serving process', tally)
      expect(tally.cuts).toBeGreaterThanOrEqual(60)
      expect(tally.differing).toBeGreaterThan(tally.cuts)
      expect(tally.wholeDisk).toBe(0)
    },
  )

  test(
    'R32, R35: at level process the time since the last synced record is lost, which is said, and answers cover it',
    LONG,
    async () => {
      const { numRuns, seed } = proof('power cuts at level process', 12, 100)
      const random = prng(seed)
      const tally = newTally()
      const recordings = numRuns > 12 ? 4 : 1
      for (let i = 0; i < recordings; i++) {
        const options = { seed: Math.floor(random() * 2 ** 31), requests: 200, depth: 8 }
        await cuts(await record({ ...options, durability: 'process' }), numRuns / recordings, random, tally)
      }
      report('power cuts at level process', tally)
      expect(tally.wholeDisk).toBeGreaterThan(0)
    },
  )

  test(
    'R30, R31: the check finds a server that writes data first, one that syncs no log, and one that syncs no disk',
    LONG,
    async () => {
      const { numRuns, seed } = proof('power cuts of wrong servers', 8, 40)
      const random = prng(seed)
      const options = { requests: 120, durability: 'power', depth: 8 } as const
      const dataFirst = await record({
        ...options,
        seed: Math.floor(random() * 2 ** 31),
        preload: join(import.meta.dirname, 'power-cut-data-first.ts'),
      })
      const right = await record({ ...options, seed: Math.floor(random() * 2 ** 31) })
      const [nasty, mild] = ['all of the disk, no unsynced log', 'all of the log, no unsynced disk'] as const
      const count = { right: 0, dataFirst: 0, noLog: 0, noDisk: 0 }
      const see = async (who: keyof typeof count, recording: Recording, model: Model, what: RegExp) => {
        const all = await faults(recording, model, numRuns, random)
        count[who] = all.length
        expect(all.filter((words) => !what.test(words))).toEqual([])
      }
      await see('right', right, nasty, /^$/)
      await see('dataFirst', dataFirst, nasty, /^R31: untold by/)
      await see(
        'noLog',
        { ...right, store: unsynced(right.store) },
        nasty,
        /^R3[01]: (untold by|answered and gone)|log|store/,
      )
      await see('noDisk', { ...right, disk: unsynced(right.disk) }, mild, /^R30: flushed and gone/)
      process.stderr.write(`proof: power cuts of wrong servers, found out in: ${JSON.stringify(count)}\n`)
      expect(count.right).toBe(0)
      expect(Math.min(count.dataFirst, count.noLog, count.noDisk)).toBeGreaterThan(0)
    },
  )
})
