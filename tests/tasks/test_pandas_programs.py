"""What models really write is run, and gives what it gives without a check."""

from __future__ import annotations

import json
import warnings
from typing import Any

import pytest

from holdfast.plugins.sandbox import run_pandas
from holdfast.plugins.sandbox.read_pandas import Refused, check_query
from holdfast.plugins.sandbox.runner import run_programs

pd = pytest.importorskip("pandas")

ROWS = [
    {"player": "Ann Lee", "team": "red", "points": 3, "share": 0.5, "day": "2020-01-02"},
    {"player": "bob", "team": "blue", "points": 5, "share": None, "day": "2020-03-04"},
    {"player": "cid", "team": "red", "points": 3, "share": 1.5, "day": "2021-01-02"},
    {"player": "dee", "team": None, "points": -1, "share": 2.0, "day": "2021-02-03"},
]
ORDINARY = """
df['points'].max()
df[df['points'] > 3]
df = df[df.points > 3]
df = df[df['team'] == 'red']; result = df['points'].sum()
result = df.groupby('team')['points'].mean().reset_index()
df.loc[(df['player'] == 'bob') & (df['points'] >= 5), 'player'].tolist()
df.loc[(df['player'].str.lower() == 'ann lee'), 'team'].iloc[0]
df.groupby('team').agg({'points': 'sum', 'share': ['mean', 'max']})
df.groupby('team').agg(total=('points', 'sum'), most=('share', 'max'))
df.groupby('team').agg(total=('points', max), spread=('points', lambda s: s.max() - s.min()))
df.groupby('team')['points'].agg(['min', 'max', 'count'])
df.groupby('team')['points'].agg(total='sum', n='count')
df.groupby('team')['points'].agg(lambda s: s.max() - s.min())
df.groupby('team')['points'].transform('mean')
df.groupby('team').apply(lambda g: g['points'].sum())
df.groupby('team').apply(lambda df: df.points.max())
df.groupby(['team', 'points']).size().reset_index(name='n')
df.groupby('team').size().to_dict()
df.groupby('team')['points'].nlargest(1)
df.groupby('team').first()
df['points'].agg('sum')
df[['points', 'share']].agg(['mean', 'std'])
df[['points', 'share']].agg('sum', axis='columns')
df[['points', 'share']].apply(np.mean)
df[['points', 'share']].apply(lambda row: row['points'] + row.share, axis=1)
df['points'].apply(lambda x: x * 2 if x > 3 else 0).sum()
df['points'].apply(str).tolist()
df['player'].apply(len)
df['player'].map(str.upper)
df['team'].map({'red': 'to_csv', 'blue': 'B'})
df['player'].map(lambda name: name.split(' ')[0])
df['points'].map(float).mean()
df.query('points > 3')
df.query('(points > 3 and team == "blue") or player == "cid"')
df.query("points in [3, 5] and not team == 'red'")
df.query('`points` == 3 & share > 1')
df.query('points > 3')['player'].values[0]
df.sort_values('points', ascending=False).head(2)['player'].tolist()
df.sort_values(by=['team', 'points'], key=lambda s: s).tail(1)
df.nlargest(1, 'points')['player'].iloc[0]
df['points'].idxmax()
df.loc[df['points'].idxmax(), 'player']
df.pivot_table(values='points', index='team', aggfunc='mean')
df.pivot_table('points', 'team', aggfunc=['sum', 'count'])
df.pivot_table(values='points', index='team', aggfunc={'points': max})
pd.pivot_table(df, values='points', index='team', aggfunc=np.sum)
pd.crosstab(df['team'], df['points'])
pd.crosstab(df.team, df.points, values=df.share, aggfunc='mean')
df.merge(df, on='team', how='inner').shape
pd.merge(df[['team', 'points']], df[['team', 'share']], on='team')
pd.concat([df, df]).drop_duplicates().shape[0]
pd.DataFrame({'a': [1, 2], 'b': ['x', 'y']})
pd.to_datetime(df['day']).dt.year.value_counts().to_dict()
df['year'] = pd.to_datetime(df['day']).dt.year; df.groupby('year')['points'].sum()
pd.to_datetime(df['day']).dt.month_name().tolist()
(pd.to_datetime(df['day']).max() - pd.to_datetime(df['day']).min()).days
df['player'].str.contains('b', case=False).sum()
df['player'].str.split(' ').str.get(0).tolist()
df['player'].str.replace('A', 'B').str.len().max()
df['share'].fillna(0).round(1).tolist()
df['share'].isna().sum()
np.log(df['points']).round(3).tolist()
(df['points'] / (df['points'] - 3)).tolist()
df.dropna(subset=['share', 'team'])
df['points'].rolling(2).mean().tolist()
df['points'].rolling(2).agg(['sum', 'mean'])
df['points'].cumsum().tolist()
df['points'].rank(ascending=False).tolist()
df['points'].corr(df['share'])
df[['points', 'share']].corr(method='kendall')
df['points'].corr(df['share'], method='spearman')
df['points'].rolling(2, win_type='triang').mean().tolist()
df['points'].quantile(0.5)
df['points'].describe()
df['team'].value_counts()
df['team'].unique().tolist()
df['team'].nunique()
len(df[df['team'] == 'red'])
sum(df['points'] > 2)
max(df['points']), min(df['points'])
sorted(df['player'], key=lambda s: -len(s))[0]
sorted([(p, n) for p, n in zip(df['points'], df['player'])])
{name: value for name, value in df.groupby('team')['points'].sum().items()}
[x ** 2 for x in df['points'] if x > 0]
[team for team, rows in df.groupby('team') if len(rows) > 1]
list(enumerate(df['player']))
dict(zip(df['player'], df['points']))
any(p > 4 for p in df.points)
total = df['points'].sum(); count = len(df); total / count
answer = f"{df['points'].sum():.2f} points by {df['player'].nunique()!r}"
'%s: %d' % ('ann', 3)
np.where(df['points'] > 3, 'high', 'low').tolist()
np.round(np.mean(df['share']), 2)
np.percentile(df['points'], 50)
df['points'].astype(float).astype(str).tolist()
df['points'].astype('category')
pd.cut(df['points'], bins=[-2, 0, 4, 9], labels=['a', 'b', 'c']).tolist()
df.melt(id_vars='player', value_vars=['points', 'share'])
df.set_index('player')['points'].to_dict()
df.set_index(['team', 'player']).sort_index().loc['red']
df.T.shape
df.iloc[0]['player']
df.iat[0, 2] + df.at[1, 'points']
df.rename(columns={'points': 'p'}).columns.tolist()
df.rename(columns=str.upper).columns.tolist()
df['big'] = df['points'] > 2; df[df.big]['player'].tolist()
counts = df['team'].value_counts().to_dict(); max(counts, key=counts.get)
best = lambda frame: frame.sort_values('points').tail(1)['player'].values[0]; best(df)
import pandas as pd; import numpy as np; df.shape
(df['points'] - df['points'].mean()).abs().max()
df['points'].between(2, 4).sum()
df.groupby('team')['player'].apply(list).to_dict()
df.groupby('team')['player'].apply(', '.join)
df.explode('points').shape
df.to_dict()
df.to_dict('records')
df.to_dict(orient='list')
df.to_dict('split')
df.set_index('player')['points'].to_frame().T.to_dict('index')
str(df)
str(df['points'])
f"{df.head(1)}"
str(df.groupby('team')['points'].sum())
str(pd.to_datetime(df['day']).min())
df.describe(include='all').shape
df.describe().round(2).to_dict()
pd.to_datetime(df['day'], format='%Y-%m-%d').dt.weekday.tolist()
pd.to_datetime('3 March 2020').month
pd.to_datetime(df['day'], utc=True).dt.hour.max()
pd.to_datetime(['1/2/2020', '31/12/2020'], dayfirst=True, format='mixed').year.tolist()
pd.to_numeric(df['points'], errors='coerce').sum()
pd.to_numeric(pd.Series(['1', 'x', None]), errors='coerce').tolist()
pd.Timestamp('2020-01-02') + pd.Timedelta(days=3)
(pd.to_datetime(df['day']) - pd.Timestamp('2020-01-01')).dt.days.tolist()
df['player'].str.extract('([a-z]+)')[0].tolist()
df['player'].str.extract('(?P<first>[a-z]+)').columns.tolist()
df['player'].str.split(expand=True).shape
df['player'].str.match('^b').tolist()
df['player'].str.title().str.strip().str.startswith('A').any()
df['player'].str.find('e').tolist()
pd.qcut(df['points'], 2, duplicates='drop').astype(str).tolist()
df['points'].value_counts(normalize=True).sort_index().to_dict()
df['points'].value_counts(bins=2).sort_index().tolist()
df.set_index(['team', 'player'])['points'].unstack().shape
df[['points', 'share']].stack().tolist()
df.pivot(index='player', columns='team', values='points').fillna(0).values.tolist()
df['points'].pct_change().tolist()
df['points'].shift(1).diff().fillna(0).tolist()
df['share'].ffill().bfill().tolist()
df.sample(2, random_state=0)['player'].tolist()
df['points'].mode().iloc[0]
df['points'].clip(0, 4).prod()
df['points'].where(df['points'] > 0, 0).mask(df['points'] > 4).tolist()
df.corr(numeric_only=True).shape
df.duplicated(subset=['team']).tolist()
df.drop(columns=['day']).reindex([3, 0]).index.tolist()
df.squeeze().shape
df.xs(0)['player']
df.get('missing')
df.groupby('team').rolling(2)['points'].sum().tolist()
df.groupby('team')['points'].describe().shape
df.groupby('team').nth(0)['player'].tolist()
df.groupby('team')['points'].quantile([0.1, 0.9]).tolist()
df.groupby('team').get_group('red').shape
df.groupby('team').groups
df.groupby('team')['points'].rank().tolist()
df.groupby(df['points'] > 3)['share'].sum().to_dict()
df.groupby('team', dropna=False)['points'].cumsum().tolist()
df.groupby('team', as_index=False).agg({'player': 'nunique', 'points': 'median'})
df.groupby('team')['points'].apply(lambda s: s.nlargest(1).sum()).sort_values().index[0]
df.groupby('team').agg({'points': [np.mean, len, 'first', 'last']}).shape
df.isin(['red']).any().any()
df[~df['team'].isnull()].shape[0] if len(df) > 2 else None
""".strip().splitlines()


def plainly(program: str) -> Any:
    """Without a check, in this process, since it is written here."""
    import numpy as np

    *first, last = program.split("; ")
    name, _, value = last.partition(" = ")
    space = {"df": pd.DataFrame(ROWS), "pd": pd, "np": np}
    with warnings.catch_warnings(action="ignore"):
        exec("\n".join(first), space)
        space["last"] = eval(value if value and name.isidentifier() else last, space)
    return run_pandas.plain_values(space["last"])


@pytest.mark.slow
def test_ordinary_programs_give_what_they_give_without_a_check() -> None:
    table = json.dumps(ROWS)
    found = run_programs(
        [(one.replace("; ", "\n"), table) for one in ORDINARY],
        "pandas",
        seconds=5,
        memory_mb=512,
        unsafe=True,
    )
    refused = {p: o.error for p, o in zip(ORDINARY, found, strict=True) if o.error}
    assert not refused
    for program, outcome in zip(ORDINARY, found, strict=True):
        assert outcome.result == json.loads(json.dumps(plainly(program))), program


REASONS = {
    "max = 3": "the name max keeps its meaning",
    "(lambda np: np)(1)": "the name np keeps",
    "[0 for pd in [1]]": "the name pd keeps",
    "df = {'a': 1}": "the name of a table keeps",
    "t = df\nt = 3\ndf = [t]": "the name of a table keeps",
    "f = pd.crosstab": "crosstab may only be called",
    "f = df.query": "query gives a method",
    "df.agg('sum', expr='1')": "the keyword expr",
    "df.groupby('team').mean(engine='x')": "the keyword engine",
    "df.groupby('team').agg(engine='sum')": "the keyword engine",
    "df.agg('to_csv')": "calling to_csv by its name",
    "df.agg(func='pipe')": "calling pipe by its",
    "df.groupby('team').agg(x=('points', 'to_csv'))": "calling to_csv by its name",
    "df['points'].map('to_csv')": "map takes a function",
    "df.agg(df)": "calling a DataFrame",
    "df.agg(x for x in ['sum'])": "calling a generator",
    "df.agg([[['to_csv']]])": "calling to_csv",
    "pd.Series.agg(df)": "agg is refused",
    "df.loc(0).to_csv": "the attribute to_csv",
    "list[int](3)": "calling a GenericAlias",
    "df.agg(list[int])": "a GenericAlias as an argument",
    "x = 3\nx()": "calling a int",
    "df.query(3)": "query takes one text",
    "df.query('points.a')": "query compares",
    "df.columns = 3": "only names and columns",
    "'{}'.format(3)": "the attribute format",
    "f'{df._x}'": "the attribute _x",
    "[0 for df['x'] in [1]]": "a comprehension iterates over names",
    "_call(3)": "the name _call",
    "x: int = 3": "AnnAssign",
    "(x := 3)": "NamedExpr",
    "x = 1\nx += 1": "AugAssign",
    "for x in [1]: x": "For",
    "def f(): 3": "FunctionDef",
    "df.agg(*['sum'])": "Starred",
    "df.agg(**{'func': 'sum'})": r"** is refused",
    "import os": "Import",
    "": "nothing to run",
    "#" * 10_001: "too long",
}


def test_what_is_refused_says_why() -> None:
    table = json.dumps(ROWS)
    found = run_programs(
        [(one, table) for one in REASONS], "pandas", seconds=5, memory_mb=512, unsafe=True
    )
    for (program, reason), outcome in zip(REASONS.items(), found, strict=True):
        assert str(outcome.error).startswith("Refused: "), (program[:80], outcome)
        assert reason in str(outcome.error), (program[:80], outcome)


@pytest.mark.parametrize(
    "text",
    ["a > 1", "(a > 1) & (b == 'x')", "`two words` >= 2 or not c", "a in [1, 2]", "-a < b + 1"],
)
def test_a_query_may_compare(text: str) -> None:
    check_query(text)


@pytest.mark.parametrize(
    "text",
    [
        "@a",
        "a.b",
        "a()",
        "a[0]",
        "__a",
        "lambda: 0",
        "[x for x in a]",
        "`a` + @b",
        "a := 1",
        "`a",
        "f'{a}'",
        "a if b else c",
        "a; b",
        3,
        None,
        "",
    ],
)
def test_a_query_may_do_no_more(text: Any) -> None:
    with pytest.raises(Refused):
        check_query(text)
