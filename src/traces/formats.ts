/** The trace formats there are, and which of them a file is. Adding one means writing its object and naming it here. */
import { CheckpointError } from '../errors.ts'
import { blkparse } from './blkparse.ts'
import { cloudPhysics, cloudPhysicsDecimal } from './cloudphysics.ts'
import { fioLog2, fioLog3 } from './fio-iolog.ts'
import type { TraceFormat } from './format.ts'
import { msrCambridge } from './msr-cambridge.ts'
import { nbdkitLog } from './nbdkit-log.ts'
import { ownCsv } from './own-csv.ts'

export const TRACE_FORMATS: readonly TraceFormat[] = [
  ownCsv,
  cloudPhysics,
  cloudPhysicsDecimal,
  blkparse,
  fioLog2,
  fioLog3,
  msrCambridge,
  nbdkitLog,
]

/** Below this share of lines that fit, a file is foreign rather than damaged. */
const SURE_ENOUGH = 0.5

/**
 * The format that fits the first lines best.
 * @throws CheckpointError TRACE_UNKNOWN_FORMAT with the first line and the formats known.
 */
export function detectFormat(path: string, firstLines: readonly string[]): TraceFormat {
  const scored = TRACE_FORMATS.map((format) => ({ format, score: format.detect(firstLines) }))
  const best = scored.reduce((a, b) => (b.score > a.score ? b : a))
  if (best.score >= SURE_ENOUGH) return best.format
  throw unknownFormat(path, `its first line is "${(firstLines[0] ?? '').slice(0, 80)}"`)
}

export function unknownFormat(path: string, seen: string): CheckpointError {
  const known = TRACE_FORMATS.map((format) => `${format.name}: ${format.columns}`)
  return new CheckpointError(
    'TRACE_UNKNOWN_FORMAT',
    `${path} is not a trace that slicelog can read: ${seen}. Convert it to one of: ${known.join('; ')}.`,
    { path, seen, known },
  )
}
