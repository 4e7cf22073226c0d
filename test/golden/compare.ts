/**
 * Says in words where the store's state differs from what QEMU reported. Only what the expectation has is compared:
 * a step that promises nothing about bitmaps is not held to any.
 */
import type { BitmapView, Expectation, Refusal, StreamView } from './format.ts'

/** The store's refusal: its own code, and QEMU's text where the refusal carries one. */
export interface OwnRefusal {
  readonly code: string
  readonly qemu?: string
}

export type Observation = Omit<Expectation, 'error'> & { readonly error: OwnRefusal | null }

/** QEMU's texts (one condition has several) and the one code of ours for each. */
const TEXTS: readonly (readonly [RegExp, string])[] = [
  [/^(Dirty bitmap '.*' not found|Bitmap '.*' could not be found)$/s, 'BITMAP_NOT_FOUND'],
  [/^Bitmap already exists: /, 'BITMAP_EXISTS'],
  [/^Bitmap name cannot be empty$/, 'NAME_EMPTY'],
  [/^Bitmap name too long: /, 'NAME_TOO_LONG'],
  [/^Granularity must be power of 2 and at least 512$/, 'GRANULARITY_INVALID'],
  [/is currently in use by another operation and cannot be used$/, 'BITMAP_BUSY'],
  [/can't be merged$/, 'SIZES_DIFFER'],
  [/^Transaction aborted using Abort action$/, 'TRANSACTION_ABORTED'],
]

const SEED_CODES: Readonly<Record<string, readonly string[]>> = {
  'not-found': [
    'BITMAP_NOT_FOUND',
    'SLICE_NOT_FOUND',
    'SLICE_DROPPED',
    'SLICE_MERGED',
    'SLICE_OLD_GENERATION',
    // The end of a backup in a stream that never was: nothing began under that name.
    'BACKUP_NOT_FOUND',
  ],
  exists: ['BITMAP_EXISTS'],
  busy: ['BITMAP_BUSY'],
  'not-running': ['BACKUP_ENDED', 'BACKUP_NOT_FOUND', 'BACKUP_STATE'],
  retention: ['RETENTION_FULL', 'RETENTION_ZERO'],
}

/** Differences, one line each; none = equal. */
export function differences(expected: Expectation, seen: Observation): string[] {
  return [
    ...errorDifferences(expected.error, seen.error),
    ...(expected.result === undefined ? [] : same('result', expected.result, seen.result)),
    ...mapDifferences('bitmap', expected.bitmaps, seen.bitmaps, bitmapDifferences),
    ...mapDifferences('stream', expected.streams, seen.streams, streamDifferences),
    ...mapDifferences('sha256 of', expected.sha256, seen.sha256, same),
    ...mapDifferences('sha256 of stream', expected.stream_sha256, seen.stream_sha256, same),
  ]
}

function errorDifferences(expected: Refusal | null, seen: OwnRefusal | null): string[] {
  if (expected === null) return seen === null ? [] : [`refused with ${JSON.stringify(seen)}, QEMU accepted`]
  if (seen === null) return [`accepted, QEMU refused with ${JSON.stringify(expected)}`]
  const codes = codesFor(expected)
  if (!codes.includes(seen.code))
    return [`refused with ${seen.code}, expected ${codes.join(' or ')} for ${JSON.stringify(expected)}`]
  if (expected.class === 'GenericError' && seen.qemu !== undefined)
    return same('text', expected.desc, seen.qemu)
  return []
}

function codesFor(expected: Refusal): readonly string[] {
  if (expected.class === 'NBD') return ['RANGE_OUTSIDE_DISK']
  if (expected.class === 'Seed') return SEED_CODES[expected.code ?? ''] ?? []
  const own = TEXTS.find(([pattern]) => pattern.test(expected.desc ?? ''))
  return own === undefined ? ['JOB_REFUSED'] : [own[1]]
}

function bitmapDifferences(title: string, expected: BitmapView, seen: BitmapView): string[] {
  const { successor_count: wanted, ...rest } = expected
  const { successor_count: found, ...own } = seen
  return [
    ...same(title, rest, own),
    ...(wanted === undefined ? [] : same(`${title} successor_count`, wanted, found)),
  ]
}

function streamDifferences(title: string, expected: StreamView, seen: StreamView): string[] {
  const keys = Object.keys(expected) as (keyof StreamView)[]
  return keys.flatMap((key) => same(`${title} ${key}`, expected[key], seen[key]))
}

function mapDifferences<T>(
  what: string,
  expected: Readonly<Record<string, T>> | undefined,
  seen: Readonly<Record<string, T>> | undefined,
  each: (title: string, expected: T, seen: T) => string[],
): string[] {
  if (expected === undefined) return []
  const found = seen ?? {}
  const extra = Object.keys(found).filter((name) => expected[name] === undefined)
  const missing = Object.keys(expected).filter((name) => found[name] === undefined)
  return [
    ...extra.map((name) => `${what} ${name} exists, not in QEMU`),
    ...missing.map((name) => `${what} ${name} is missing`),
    ...Object.keys(expected).flatMap((name) =>
      found[name] === undefined ? [] : each(`${what} ${name}`, expected[name]!, found[name]),
    ),
  ]
}

function same(title: string, expected: unknown, seen: unknown): string[] {
  const [wanted, found] = [canonical(expected), canonical(seen)]
  return wanted === found ? [] : [`${title}: expected ${brief(wanted)}, got ${brief(found)}`]
}

/** JSON with sorted keys, so that the order of members means nothing. */
function canonical(value: unknown): string {
  return (
    JSON.stringify(value, (_, inner: unknown) => {
      if (inner === null || typeof inner !== 'object' || Array.isArray(inner)) return inner
      return Object.fromEntries(Object.entries(inner).sort(([a], [b]) => (a < b ? -1 : 1)))
    }) ?? 'undefined'
  )
}

function brief(text: string): string {
  return text.length <= 400 ? text : `${text.slice(0, 400)}… (${text.length} characters)`
}
