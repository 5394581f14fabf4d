package main

import (
	"fmt"
	"image/color"
	"math"
	"os"
	"path/filepath"
	"strings"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/font"
	"gonum.org/v1/plot/plotter"
	"gonum.org/v1/plot/vg"
	"gonum.org/v1/plot/vg/draw"
	"gonum.org/v1/plot/vg/vgsvg"
)

// draw draws the plots that the README and docs/performance.md show, as far as
// their scenarios were measured.
func (r *results) draw(folder string) error {
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	for _, c := range r.Samples.charts() {
		if len(c.bars) == 0 {
			continue
		}
		svg, err := c.svg()
		if err != nil {
			return fmt.Errorf("%s: %w", c.file, err)
		}
		if err := os.WriteFile(filepath.Join(folder, c.file), svg, 0o644); err != nil {
			return err
		}
	}
	return nil
}

// A chart has groups of bars, one bar of each library in each group.
type chart struct {
	file, title, axis string
	groups            []string
	bars              []bars
	log               bool    // the axis is logarithmic, from floor on
	floor             float64 // what is less is drawn as this
	line              float64 // a level to compare with, if not 0
}

// Bars are those of one library.
type bars struct {
	library string
	values  []float64 // by group; NaN: none
	labels  []string
}

// colours are the same for a library wherever it occurs. Ours stands out; what is
// of one family has one hue.
var colours = map[string]color.Color{
	redislockPeer.name:                        color.RGBA{0xd6, 0x27, 0x28, 0xff},
	redsyncPeer.name:                          color.RGBA{0x1f, 0x77, 0xb4, 0xff},
	onAutoPipeline(redsyncPeer, variant).name: color.RGBA{0xa6, 0xcd, 0xe8, 0xff},
	bsmPeer.name:                              color.RGBA{0x2c, 0x8c, 0x3c, 0xff},
	onAutoPipeline(bsmPeer, variant).name:     color.RGBA{0xa8, 0xd8, 0xa0, 0xff},
	rueidislockPeer.name:                      color.RGBA{0x8e, 0x63, 0xb8, 0xff},
	rawPeer.name:                              color.RGBA{0x77, 0x77, 0x77, 0xff},
	onAutoPipeline(rawPeer, floor).name:       color.RGBA{0xbf, 0xbf, 0xbf, 0xff},
	linePeer.name:                             color.RGBA{0xb0, 0x8d, 0x57, 0xff},
	ringPeer.name:                             color.RGBA{0x5b, 0x4a, 0x36, 0xff},
}

const (
	chartWidth  = 24 * vg.Centimeter
	chartHeight = 10 * vg.Centimeter
	legendWidth = 5.4 * vg.Centimeter
)

// svg returns the chart, on a white background that suits dark pages too.
func (c chart) svg() ([]byte, error) {
	plot.DefaultFont, plotter.DefaultFont = sans, sans
	p := plot.New()
	p.BackgroundColor = color.White
	p.Title.Text, p.Title.TextStyle.Font.Size, p.Title.Padding = c.title, 13, 10
	p.Y.Label.Text, p.Y.Label.TextStyle.Font.Size, p.Y.Label.Padding = c.axis, 11, 4
	p.Y.Tick.Label.Font.Size, p.Y.Tick.Marker = 10, ticks{c.log}
	p.Y.Padding, p.X.Padding = 0, 0
	grid := plotter.NewGrid()
	grid.Vertical.Width = 0
	grid.Horizontal.Color = color.Gray{0xdd}
	p.Add(grid, c)
	p.NominalX(c.groups...)
	p.X.Tick.Label.Font.Size, p.X.Tick.Length, p.X.Tick.Width = 11, 4, 0
	p.X.Min, p.X.Max = -0.5, float64(len(c.groups))-0.5
	p.Y.Min, p.Y.Max = 0, c.top()*1.08
	if c.log {
		p.Y.Scale, p.Y.Min, p.Y.Max = plot.LogScale{}, c.floor, c.top()*2
	}

	canvas := vgsvg.New(chartWidth, chartHeight)
	area := draw.New(canvas)
	area.SetColor(color.White)
	area.Fill(area.Rectangle.Path())
	p.Draw(draw.Crop(area, 8, -(legendWidth + 8), 8, -8))
	legend := plot.NewLegend()
	legend.Top, legend.Left = true, true
	legend.TextStyle.Font.Size, legend.Padding, legend.ThumbnailWidth = 10, 4, 14
	for _, b := range c.bars {
		legend.Add(" "+b.library, b)
	}
	legend.Draw(draw.Crop(area, chartWidth-legendWidth, 0, 0, -36))
	var b strings.Builder
	if _, err := canvas.WriteTo(&b); err != nil {
		return nil, err
	}
	// Arial and Helvetica are as wide, and are what readers have.
	return []byte(strings.ReplaceAll(b.String(), "Liberation Sans", "Liberation Sans,Arial,Helvetica,sans-serif")), nil
}

var sans = font.Font{Typeface: "Liberation", Variant: "Sans"}

// top returns the highest value.
func (c chart) top() (top float64) {
	for _, b := range c.bars {
		for _, value := range b.values {
			if value > top {
				top = value
			}
		}
	}
	return top
}

// Plot draws the bars, each with its label on top.
func (c chart) Plot(canvas draw.Canvas, p *plot.Plot) {
	x, y := p.Transforms(&canvas)
	style := p.X.Tick.Label
	style.Font.Size, style.XAlign, style.YAlign = 7.5, draw.XCenter, draw.YBottom
	width := 0.84 / float64(len(c.bars)) // of a group, which is 1 wide
	for i, b := range c.bars {
		for g, value := range b.values {
			if math.IsNaN(value) {
				continue
			}
			left := float64(g) + (float64(i)-float64(len(c.bars))/2)*width
			foot, head := y(p.Y.Min), y(math.Max(value, p.Y.Min))
			canvas.FillPolygon(colours[b.library], []vg.Point{
				{X: x(left + 0.05*width), Y: foot}, {X: x(left + 0.05*width), Y: head},
				{X: x(left + 0.95*width), Y: head}, {X: x(left + 0.95*width), Y: foot},
			})
			canvas.FillText(style, vg.Point{X: x(left + width/2), Y: head + 2}, b.labels[g])
		}
	}
	if c.line != 0 {
		level := draw.LineStyle{Color: color.Gray{0x33}, Width: 1, Dashes: []vg.Length{4, 3}}
		canvas.StrokeLine2(level, x(p.X.Min), y(c.line), x(p.X.Max), y(c.line))
	}
}

// Thumbnail draws the legend's sample.
func (b bars) Thumbnail(canvas *draw.Canvas) {
	canvas.FillPolygon(colours[b.library], []vg.Point{
		{X: canvas.Min.X, Y: canvas.Min.Y}, {X: canvas.Min.X, Y: canvas.Max.Y},
		{X: canvas.Max.X, Y: canvas.Max.Y}, {X: canvas.Max.X, Y: canvas.Min.Y},
	})
}

// ticks are few, and written as a reader writes numbers.
type ticks struct{ log bool }

func (t ticks) Ticks(least, most float64) (all []plot.Tick) {
	if t.log {
		for value := math.Pow(10, math.Ceil(math.Log10(least))); value <= most; value *= 10 {
			all = append(all, plot.Tick{Value: value, Label: short(value)})
		}
		return all
	}
	step := math.Pow(10, math.Floor(math.Log10(most)))
	for _, part := range []float64{1, 0.5, 0.2, 0.1} {
		if most/(step*part) >= 4 {
			step *= part
			break
		}
	}
	for i := 0.0; i*step <= most; i++ {
		all = append(all, plot.Tick{Value: i * step, Label: short(i * step)})
	}
	return all
}
