/**
 * Traces of a real QEMU, read backwards: when a whole trace was replayed, every moment of it that had a position of its
 * own is asked for again, and must still be what QEMU reported then. The plans of its backups are rebuilt from the log.
 */
import { existsSync } from 'node:fs'
import { basename } from 'node:path'
import { fileURLToPath } from 'node:url'
import { expect, test } from 'vitest'
import type { PastState } from '../../src/index.ts'
import { announce, full } from '../support/property.ts'
import type { BitsView, Expectation, Step } from './format.ts'
import { readTrace, tracesIn } from './format.ts'
import { DISK, Replay } from './replay.ts'

const OWN = fileURLToPath(new URL('recorded', import.meta.url))
const BESIDE = fileURLToPath(new URL('../../../shared/golden', import.meta.url))
const files = [...tracesIn(OWN), ...(full && existsSync(BESIDE) ? tracesIn(BESIDE) : [])]

async function bitsThen(past: PastState, bitmap: string, slice?: number): Promise<BitsView> {
  const { count, extents } = await past.bits(DISK, bitmap, slice === undefined ? {} : { slice })
  return { count, extents }
}

/** What `at` shows, in the shape of what QEMU reported at that moment. */
async function stateThen(past: PastState, wanted: Expectation) {
  const bitmaps: Record<string, unknown> = {}
  for (const name of Object.keys(wanted.bitmaps ?? {})) bitmaps[name] = await bitsThen(past, name)
  const streams: Record<string, unknown> = {}
  for (const name of Object.keys(wanted.streams ?? {})) {
    const slices = []
    for (const { slice } of (await past.slices(DISK, name)).slices)
      slices.push({ id: slice, ...(await bitsThen(past, name, slice)) })
    streams[name] = { held: await bitsThen(past, name), slices }
  }
  return { names: new Set(past.bitmaps(DISK).map((info) => info.bitmap)), bitmaps, streams }
}

/** Of a busy plain bitmap QEMU shows the count only. */
function wantedThen(wanted: Expectation, shown: { bitmaps: Record<string, unknown> }) {
  const bitmaps: Record<string, unknown> = {}
  for (const [name, { count, extents }] of Object.entries(wanted.bitmaps ?? {}))
    bitmaps[name] = { count, extents: extents ?? (shown.bitmaps[name] as BitsView).extents }
  const streams: Record<string, unknown> = {}
  for (const [name, { active, frozen, slices }] of Object.entries(wanted.streams ?? {}))
    streams[name] = { held: frozen ?? active, slices }
  return { names: new Set([...Object.keys(bitmaps), ...Object.keys(streams)]), bitmaps, streams }
}

test.each(files.map((file) => [basename(file), file] as const))(
  'R22, R26: every past moment of %s is still what QEMU reported then, and its plans come again from the log',
  async (_, file) => {
    const trace = readTrace(file)
    const replay = await Replay.open(trace.disk.size, 'folder')
    try {
      const moments = new Map<number, Expectation>()
      for (const { expect: wanted, ...step } of trace.steps) {
        await replay.step(step as Step)
        if (wanted.bitmaps !== undefined) moments.set(replay.store.head.position, wanted)
        // A job that may be over at once is not vouched for until its end.
        else moments.delete(replay.store.head.position)
      }
      announce(`past of ${basename(file)}`, moments.size, trace.seed)
      for (const [position, wanted] of moments) {
        const shown = await stateThen(await replay.store.at({ position }), wanted)
        expect({ position, ...shown }).toEqual({ position, ...wantedThen(wanted, shown) })
      }
      for (const { id, digest, bytes } of replay.store.backups()) {
        const again = await replay.store.replayPlan(id)
        expect([id, again.digest, again.bytes]).toEqual([id, digest, bytes])
      }
    } finally {
      await replay.close()
    }
  },
)
